"""What the authority detectors promise: what an effect grants, and to whom, is said before it leaves its sandbox."""

REQUIREMENTS: dict[str, str] = {
    "AUTHORITY-1": "each family's detector says what a change grants, and to whom; its benign twin is inert, and says why",
    "AUTHORITY-2": "what cannot be read, could be read in two ways, or makes a detector fail counts as granting",
    "AUTHORITY-3": "no other spelling of a name, encoding, comment, anchor or duplicate key hides a grant",
    "AUTHORITY-4": "a finding quotes names, never values",
    "AUTHORITY-5": "packages can bring detectors; these can add findings and take none away, and one that does not load counts as granting",
}
