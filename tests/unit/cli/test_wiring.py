"""An execution has the settings that are in force when it begins."""

from common.settings.model import Main, Settings, Site
from phedex_rucio import wiring


def test_every_world_has_the_settings_of_its_moment() -> None:
    now = [Settings(), Settings(default=Site(dry=True))]
    engine = wiring.engine(Settings(main=Main()), lambda: now.pop(0))
    worlds = [engine.world(lambda: None) for _ in range(2)]
    assert [world.settings.site("T2_IT_Pisa").dry for world in worlds] == [False, True]
    assert worlds[0].phedex is worlds[1].phedex  # clients stay: one a thread
