"""Which names does CMS use? Plain patterns and lengths, without Rucio.

The patterns are for Python's `re.search`, as JSON schema applies them, so each is anchored at both ends; the end is
`\\Z`, because `$` would let a trailing line feed through.
"""

# A file name has up to 500 characters (DBS). Rucio builds its columns with this length, so it must be right
# before the database is made: Rucio's own value is 250.
NAME_LENGTH = 500
ACCOUNT_LENGTH = 25
SCOPE_LENGTH = 25

# Datasets and blocks of the tracker tests of 2007, which are still there, have only two parts: the dataset
# /TAC-TIF-120-DAQ-EDM/RAW holds blocks like /TAC-TIF-120-DAQ-EDM/CMSSW_1_2_0-RAW-Run-0011085#97007663-….
# Tiers have digits in real data, which the last CMS schema that came with Rucio did not allow.
_PRIMARY = r"/[A-Za-z0-9_\-]{1,99}"
_PROCESSED = r"/[A-Za-z0-9_.\-]{1,199}"
_TIER = r"/[A-Z0-9_\-]{1,99}"
_DATASET = rf"{_PRIMARY}({_PROCESSED})?{_TIER}"
_BLOCK = rf"{_PRIMARY}{_PROCESSED}({_TIER})?#[A-Za-z0-9_.\-]{{1,100}}"
_FILE = r"/store/[A-Za-z0-9][A-Za-z0-9_.+=\-/]*"

CONTAINER = rf"\A{_DATASET}\Z"
DATASET = rf"\A{_BLOCK}\Z"
FILE = rf"\A{_FILE}\Z"
NAME = rf"\A({_FILE}|{_DATASET}|{_BLOCK})\Z"

SCOPE = r"\A(cms|(user|group)\.[a-z0-9_.\-]+)\Z"
ACCOUNT = r"\A[a-z0-9_\-]+\Z"

# A node's name; the RSEs made from it end in _Tape, _Temp or _Test, which the same pattern covers.
RSE = r"\AT[0-3]_[A-Z]{2}((_[A-Za-z0-9]+)+)\Z"
