"""Every setting is described, with its default where that is short."""

from pathlib import Path

from common.settings.model import Main, Site

DOCUMENT = (Path(__file__).parents[3] / "docs/settings.md").read_text()


def test_every_setting_is_in_the_document() -> None:
    missing = [name for name in (*Main.__struct_fields__, *Site.__struct_fields__) if f"`{name}`" not in DOCUMENT]
    assert missing == []
