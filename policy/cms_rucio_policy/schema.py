"""What may a name be? Rucio's own JSON schemas with the CMS names in place of the generic ones.

Whatever is not defined here, Rucio takes from its generic module; its schemas refer to `NAME`, `RSE` and so on by
name, so they follow. `ATTACHMENT` is the exception: it holds a copy of the RSE pattern, hence the copy of it here.
"""

from rucio.common.schema.schema_ref import SchemaRef

from . import patterns

ACCOUNT_LENGTH = patterns.ACCOUNT_LENGTH
NAME_LENGTH = patterns.NAME_LENGTH
SCOPE_LENGTH = patterns.SCOPE_LENGTH

ACCOUNT = {
    "description": "Account name",
    "type": "string",
    "maxLength": ACCOUNT_LENGTH,
    "pattern": patterns.ACCOUNT,
}

SCOPE = {"description": "Scope name", "type": "string", "maxLength": SCOPE_LENGTH, "pattern": patterns.SCOPE}

NAME = {
    "description": "CMS dataset, block or file name",
    "type": "string",
    "maxLength": NAME_LENGTH,
    "pattern": patterns.NAME,
}

RSE = {"description": "RSE name", "type": "string", "pattern": patterns.RSE}

DEFAULT_RSE_ATTRIBUTE = {"description": "Default RSE attribute", "type": "string", "pattern": patterns.RSE}

ATTACHMENT = {
    "description": "Attachment",
    "type": "object",
    "properties": {
        "scope": SchemaRef("SCOPE"),
        "name": SchemaRef("NAME"),
        "rse": {"description": "RSE name", "type": ["string", "null"], "pattern": patterns.RSE},
        "dids": SchemaRef("DIDS"),
    },
    "required": ["dids"],
    "additionalProperties": False,
}

SCHEMAS = {"account": ACCOUNT, "name": NAME, "rse": RSE, "scope": SCOPE, "attachment": ATTACHMENT}
