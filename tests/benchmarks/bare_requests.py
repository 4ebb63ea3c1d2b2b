"""A process that only sends requests to Rucio, `python bare_requests.py NODE NUMBER`: begin and end as JSON."""

import json
import sys
import time
from pathlib import Path

from rucio.client import Client

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.benchmarks import late


def main(node: str, number: int) -> None:
    """So many questions which RSE a node is, after one that logs in. All such processes begin at a full 20 seconds."""
    late.install()
    client = Client()
    client.whoami()
    time.sleep(20 - time.time() % 20)
    began = time.time()
    for _ in range(number):
        list(client.list_rses(f"cms_type=real&pnn={node}"))
    print(json.dumps([began, time.time()]))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
