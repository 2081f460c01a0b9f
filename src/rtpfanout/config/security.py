"""The sections [tls] and [auth]: who is let in to the control API, and as what."""

from pydantic import BaseModel, ConfigDict, Field

from rtpfanout.config.types import Text, Texts


class TlsSettings(BaseModel):
    """Files in PEM; when they change they are read again, without a restart."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    certificate: Text = Field(
        default="", description="The server's certificate chain. Empty: no TLS."
    )
    key: Text = Field(default="", description="The key of that certificate.")
    client_ca: Text = Field(
        default="",
        description="Callers need a certificate of this authority. Empty: they need none.",
    )


class AuthSettings(BaseModel):
    """Without keys and without tls.client_ca every caller may do everything."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    jwt_keys: Text = Field(
        default="",
        description="File with the keys that bearer tokens are signed with: a JWKS, or public keys "
        "in PEM. Empty: no tokens are taken.",
    )
    issuer: Text = Field(default="", description="What `iss` of a token must be. Empty: anything.")
    audience: Text = Field(
        default="", description="What `aud` of a token must hold. Empty: it must have none."
    )
    certificate_roles: Texts = Field(
        default=(),
        description="What callers with a certificate and no token may do: common or alternative "
        'name, role, and labels that confine it, such as "wall-2 viewer site=north". * is any '
        'other name. Empty: "* admin" or, with jwt_keys, nothing.',
    )
