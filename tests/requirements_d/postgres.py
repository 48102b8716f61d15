"""Requirements of the store on a Postgres server, beyond what every adapter passes (STORE)."""

REQUIREMENTS: dict[str, str] = {
    "POSTGRES-1": "several processes share one store: no cap is passed, the chain has no hole, one owner holds a run",
    "POSTGRES-2": "a client that is killed in a transaction leaves nothing and holds nobody up",
    "POSTGRES-3": "a connection that is lost is an error with nothing half done; the next transaction has a new one",
    "POSTGRES-4": "an orderly restart of the server is survived; after a crash, processes that knew more than it are refused",
    "POSTGRES-5": "a durable batch waits for the disk, another does not; every wait has a bound, past which the store is busy or gone",
    "POSTGRES-6": "without its server a run begins nothing",
    "POSTGRES-7": "migrations end in the same tables as an empty store begins with, whole or not at all",
    "POSTGRES-9": "a home's file is copied to a server whole and verified, or not at all; it goes on there",
    "POSTGRES-8": "a home keeps to the server it began with; the address's password is in no message, log or file of it",
}
