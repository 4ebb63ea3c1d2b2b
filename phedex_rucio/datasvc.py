"""A PhEDEx data service of our own: serve a snapshot, make one, change it."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

_NEW = click.Path(path_type=Path, dir_okay=False)
_FILE = click.Path(path_type=Path, dir_okay=False, exists=True)
_FOLDER = click.Path(path_type=Path, file_okay=False, exists=True)


@click.group("datasvc")
def command() -> None:
    """The PhEDEx data service over a snapshot file, for tests, demonstrations and an archive of PhEDEx."""


@command.command("serve")
@click.argument("snapshot", type=_FILE)
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=7001, show_default=True, help="0 takes a free one; the URL is printed.")
@click.option("--faults", type=_NEW, help="Test aid: a JSON file of ways to misbehave, read at every request.")
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65535),
    default=0,
    help="Serve /metrics, /healthz and /readyz here, on the same host; 0: nowhere.",
)
def serve(snapshot: Path, host: str, port: int, faults: Path | None, metrics_port: int) -> None:
    """Answer PhEDEx' read calls from SNAPSHOT, which may change meanwhile."""
    from datasvc.serve import serve as run  # noqa: PLC0415 -- needs the extra `datasvc`, which a worker has not

    run(snapshot, host, port, faults, metrics_port)


@command.command("import")
@click.argument("output", type=_NEW)
@click.option("--tables", type=_FOLDER, help="Folder of recorded tables; the packaged ones of 2016 by default.")
@click.option("--tfc", type=_FOLDER, help="Folder of SITE.storage.xml files; the packaged ones by default.")
def import_(output: Path, tables: Path | None, tfc: Path | None) -> None:
    """Make the snapshot OUTPUT of recorded tables and catalogues."""
    from datasvc.recording import load  # noqa: PLC0415

    counts = msgspec.to_builtins(load(output, tables, tfc))
    click.echo(f"{output}: " + ", ".join(f"{count} {name}" for name, count in counts.items()))


@command.command("capture")
@click.argument("url")
@click.option("--output", type=_NEW, required=True, help="The snapshot; OUTPUT.part until all of it is there.")
@click.option("--instance", default="prod", show_default=True)
@click.option("--timeout", type=float, default=300.0, show_default=True, help="Seconds for one reply.")
def capture(url: str, output: Path, instance: str, timeout: float) -> None:
    """Save the live data service at URL (up to and with /datasvc) into a snapshot.

    Interrupted or refused at any point, the same command goes on where it ended.
    """
    from common.phedex.client import Phedex  # noqa: PLC0415
    from common.settings.load import load  # noqa: PLC0415
    from datasvc.capture import capture as steps  # noqa: PLC0415
    from phedex_rucio.progress import Steps  # noqa: PLC0415

    main = load(None, flags={"main.phedex_url": url, "main.phedex_instance": instance, "main.phedex_timeout": timeout})
    with Phedex(main.settings.main) as phedex, Steps() as bar:
        for step in steps(phedex, instance, url, output):
            bar.show(step.what, step.done, step.of)
    click.echo(f"{output}: captured from {url}")


@command.command("generate")
@click.argument("output", type=_NEW)
@click.option("--nodes", type=click.IntRange(1), default=20, show_default=True)
@click.option("--blocks", type=click.IntRange(1), default=1000, show_default=True)
@click.option("--files", type=click.IntRange(1), default=10, show_default=True, help="Mean number of files a block.")
@click.option("--seed", type=int, default=1, show_default=True)
def generate(output: Path, nodes: int, blocks: int, files: int, seed: int) -> None:
    """Make the snapshot OUTPUT of invented data, about 2.3 replicas a block; the same for the same seed."""
    from datasvc.generate import Size  # noqa: PLC0415
    from datasvc.generate import generate as make  # noqa: PLC0415

    replicas = make(output, Size(nodes, blocks, files), seed)
    click.echo(f"{output}: {nodes} nodes, {blocks} blocks, {replicas} block replicas")


@command.command("change")
@click.argument("snapshot", type=_FILE)
@click.option("--seed", type=int, required=True)
@click.option("--steps", type=click.IntRange(1), default=1, show_default=True)
def change(snapshot: Path, seed: int, steps: int) -> None:
    """Let blocks of SNAPSHOT come, go, move, grow, shrink, become incomplete or unknown, also while it is served."""
    from datasvc.change import apply  # noqa: PLC0415

    for done in apply(snapshot, seed, steps):
        click.echo(" ".join(part for part in (str(done.kind), done.block, done.node, done.detail) if part))


if __name__ == "__main__":
    command()
