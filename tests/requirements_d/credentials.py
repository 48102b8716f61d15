"""What the README promises about credentials in text."""

from __future__ import annotations

REQUIREMENTS: dict[str, str] = {
    "CREDENTIALS-1": "Known forms of credentials are replaced by a marker before a model, the state or the ledger sees them.",
    "CREDENTIALS-2": "One store gives one secret one marker, and scrubbing twice changes nothing.",
    "CREDENTIALS-3": "Text without credentials is not changed by one byte: reports, logs, digests, images, code.",
    "CREDENTIALS-4": "No text makes the scan slower than linear.",
}
