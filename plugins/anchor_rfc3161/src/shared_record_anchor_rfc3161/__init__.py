"""RFC 3161 time-stamps of checkpoints: an authority signs the hash of each note together with the time.

The proof that is kept is the authority's whole answer (``TimeStampResp``, DER), which ``openssl ts`` reads too.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar, cast

from cryptography import x509
from pydantic import Field
from rfc3161_client import (
    HashAlgorithm,
    TimestampRequestBuilder,
    TimeStampResponse,
    VerificationError,
    VerifierBuilder,
    decode_timestamp_response,
)

from shared_record.plugin import AnchorContext, AnchorProof, AnchorSettings, CheckpointAnchor, hookimpl

SHA256 = x509.ObjectIdentifier("2.16.840.1.101.3.4.2.1")


class Rfc3161Settings(AnchorSettings):
    """``roots`` names a PEM file with the authority's root, and its intermediate certificates where it has any."""

    url: str = Field(pattern=r"^https?://[!-~]+$", max_length=500)
    roots: Path
    timeout: int = Field(default=10, ge=1, le=25)


class Rfc3161(CheckpointAnchor):
    """A time-stamp authority."""

    slug: ClassVar[str] = "rfc3161"
    title: ClassVar[str] = "Time-stamp (RFC 3161)"
    settings_model: ClassVar[type[AnchorSettings]] = Rfc3161Settings

    def anchor(self, note_digest: bytes, note: bytes, ctx: AnchorContext) -> AnchorProof:
        """Ask for a token over ``note``, and return it only if it holds now, up to a root of the settings."""
        settings = cast(Rfc3161Settings, ctx.settings)
        request = (
            TimestampRequestBuilder()
            .data(note)
            .hash_algorithm(HashAlgorithm.SHA256)
            .nonce(nonce=True)
            .cert_request(cert_request=True)
            .build()
        )
        status, answer = ctx.post(
            settings.url,
            request.as_bytes(),
            content_type="application/timestamp-query",
            timeout=settings.timeout,
        )
        if status != 200:
            raise OSError(f"the time-stamp authority answered {status}")
        response = _checked(answer, note_digest, settings.roots.read_bytes(), nonce=request.nonce)
        return AnchorProof(self.slug, answer, _time(response))

    def verify(self, proof: bytes, note_digest: bytes, trusted: bytes) -> str:
        """Judge a token by the root certificates in ``trusted`` (PEM)."""
        if not trusted:
            raise LookupError("give the root certificate of the time-stamp authority to trust")
        response = _checked(proof, note_digest, trusted)
        moment = _time(response).isoformat(timespec="seconds").replace("+00:00", "Z")
        return f"time-stamped by {_signer(response)} at {moment}"


@hookimpl
def register_checkpoint_anchors() -> list[type[CheckpointAnchor]]:
    """Offer time-stamps."""
    return [Rfc3161]


def _checked(answer: bytes, digest: bytes, pem: bytes, nonce: int | None = None) -> TimeStampResponse:
    """Return an answer whose token is over ``digest`` and signed under a root in ``pem``, valid at the stamped time."""
    roots, others = _certificates(pem)
    try:
        response = decode_timestamp_response(answer)
        verifier = VerifierBuilder(roots=roots, intermediates=others, nonce=nonce).build()
        verifier.verify(response, digest)
    except (VerificationError, ValueError) as error:
        raise ValueError(f"the time-stamp does not hold: {error}") from error
    if response.tst_info.message_imprint.hash_algorithm != SHA256:
        raise ValueError("the time-stamp is over another hash than SHA-256")
    return response


def _certificates(pem: bytes) -> tuple[list[x509.Certificate], list[x509.Certificate]]:
    """Return the self-issued certificates of a PEM file, and the others."""
    found = x509.load_pem_x509_certificates(pem)
    roots = [one for one in found if one.issuer == one.subject]
    if not roots:
        raise ValueError("there is no root certificate among those to trust")
    return roots, [one for one in found if one.issuer != one.subject]


def _time(response: TimeStampResponse) -> datetime:
    return response.tst_info.gen_time.astimezone(UTC)


def _signer(response: TimeStampResponse) -> str:
    """Return the common name of the certificate that signed, or its whole name."""
    for der in response.signed_data.certificates:
        certificate = x509.load_der_x509_certificate(der)
        for signer in response.signed_data.signer_infos:
            if (certificate.issuer, certificate.serial_number) == (signer.issuer, signer.serial_number):
                names = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
                return str(names[0].value) if names else certificate.subject.rfc4514_string()
    return "an authority that the token does not name"
