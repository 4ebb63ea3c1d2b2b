#!/usr/bin/env bash
# Makes what is secret, once: deploy/secrets/ with a password a file, Rucio's client configuration and the broker's users.
# What is there stays. `deploy/secrets.sh tls` makes a private authority and certificates as well, for compose.tls.yaml.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# The folder keeps others out; the files are readable because each container reads them as another user.
umask 022
mkdir -p secrets && chmod 700 secrets

random() { openssl rand -hex 24; }
missing() { [ ! -e "secrets/$1" ]; }

for name in amqp_setup amqp_scheduler amqp_worker amqp_operator postgres rucio; do
    if missing "$name"; then random >"secrets/$name"; fi
done

# RabbitMQ's hash: four bytes of salt, then SHA-256 of salt and password, in base64.
hashed() {
    local salt
    salt=$(openssl rand -hex 4)
    { bytes "$salt"; { bytes "$salt"; tr -d '\n' <"secrets/$1"; } | openssl dgst -sha256 -binary; } | openssl base64 -A
}
bytes() { printf '%b' "$(sed 's/../\\x&/g' <<<"$1")"; }

if missing definitions.json || [ rabbitmq/definitions.json.in -nt secrets/definitions.json ]; then
    text=$(<rabbitmq/definitions.json.in)
    for user in setup scheduler worker operator; do
        text=${text//"@$user@"/$(hashed "amqp_$user")}
    done
    printf '%s\n' "$text" >secrets/definitions.json
fi

client() {
    printf '[client]\nrucio_host = %s\nauth_host = %s\naccount = phedex_sync\nauth_type = userpass\n' "$1" "$1"
    printf 'username = phedex_sync\npassword = %s\nrequest_retries = 3\n' "$(<secrets/rucio)"
}
if missing rucio.cfg; then client http://rucio:8080 >secrets/rucio.cfg; fi

certificate() {  # $1: name of the service, which is its host name too
    openssl req -newkey rsa:3072 -nodes -keyout "secrets/tls/$1.key" -subj "/CN=$1" -out "secrets/tls/$1.csr" 2>/dev/null
    openssl x509 -req -in "secrets/tls/$1.csr" -CA secrets/tls/ca.crt -CAkey secrets/tls/ca.key -CAcreateserial -days 365 \
        -extfile <(printf 'subjectAltName=DNS:%s,DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth' "$1") \
        -out "secrets/tls/$1.crt" 2>/dev/null
    rm "secrets/tls/$1.csr"
    chmod 644 "secrets/tls/$1.key"
}
if [ "${1:-}" = tls ]; then
    mkdir -p secrets/tls
    if missing tls/ca.crt; then
        openssl req -x509 -newkey rsa:3072 -nodes -keyout secrets/tls/ca.key -out secrets/tls/ca.crt -days 3650 \
            -subj '/CN=phedex-rucio private CA' -addext 'keyUsage=critical,keyCertSign,cRLSign' 2>/dev/null
        chmod 600 secrets/tls/ca.key
    fi
    for name in rabbitmq rucio; do
        if missing "tls/$name.crt"; then certificate "$name"; fi
    done
    if missing rucio-tls.cfg; then
        { client https://rucio:8080; echo 'ca_cert = /run/secrets/ca'; } >secrets/rucio-tls.cfg
    fi
fi
echo "deploy/secrets: $(find secrets -type f | wc -l) files"
