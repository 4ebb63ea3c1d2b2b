"""Does a handler get on?"""

import time

from common.messages.commands import SyncSite, Upload
from consumers.engine.in_hand import Busy

SITE = SyncSite(node="T2_IT_Pisa")


def test_only_a_handler_at_work_can_hang() -> None:
    """What waits for a system before it, or for the broker after it, waits for as long as the outage lasts."""
    busy = Busy()
    with busy.on(SITE):
        assert busy.stillest() == ("", 0.0)
        with busy.handling(SITE):
            time.sleep(0.02)
            name, before = busy.stillest()
            assert name == "sync.site T2_IT_Pisa"
            assert before >= 0.02
            busy.step()
            assert busy.stillest()[1] < before
        assert busy.stillest() == ("", 0.0)


def test_an_upload_is_one_step_of_any_length() -> None:
    lfn = "/store/temp/user/a"
    upload = Upload(file="a", bytes=1, adler32="00000001", name=lfn, temp_rse="A_Temp", dest_rse="B_Test")
    busy = Busy()
    with busy.handling(upload):
        assert busy.stillest() == ("", 0.0)
