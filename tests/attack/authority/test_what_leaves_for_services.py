"""What requests, statements and commands grant, before they leave; each with a twin that is proved inert."""

from __future__ import annotations

import pytest

from midwatch.containment.authority import Command, Http, Sql
from tests.attack.authority.pairs import changed, sent, told

G = "https://api.github.com"
SERVICES = [
    (sent("PUT", f"{G}/repos/a/b/collaborators/eve", b"{}"), sent("GET", f"{G}/repos/a/b/collaborators")),
    (sent("POST", f"{G}/repos/a/b/hooks", b"{}"), sent("POST", f"{G}/repos/a/b/issues", b'{"title": "hooks"}')),
    (
        sent("DELETE", f"{G}/repos/a/b/branches/main/protection"),
        sent("POST", f"{G}/repos/a/b/pulls", b'{"title": "x", "maintainer_can_modify": true}'),
    ),
    (sent("POST", f"{G}/repos/a/b/keys", b"{}"), sent("POST", f"{G}/repos/a/b/issues/1/comments", b'{"body": "keys"}')),
    (
        sent("PUT", f"{G}/repos/a/b/contents/.github/workflows/x.yml", b"{}"),
        sent("GET", f"{G}/repos/a/b/contents/.github/workflows/x.yml"),
    ),
    (
        sent("PUT", f"{G}/repos/a/b/contents/%2Egithub/workflows/x.yml", b"{}"),
        sent("POST", f"{G}/repos/a/b/issues/1/labels", b"[]"),
    ),
    (
        sent("POST", f"{G}/repos/a/b/pulls/../hooks", b"{}"),
        sent("PATCH", f"{G}/repos/a/b/issues/1", b'{"state": "closed"}'),
    ),
    (
        sent("POST", f"{G}/repos/a/b/issues/1/comments", b"{}", X_HTTP_Method_Override="PUT"),
        sent("POST", f"{G}/repos/a/b/issues/1/comments", b"{}", X_Note="PUT"),
    ),
    (
        sent("POST", f"{G}/repos/a/b/issues", b'{"title": "x", "permissions": "admin"}'),
        sent("POST", f"{G}/repos/a/b/issues", b'{"title": "permissions"}'),
    ),
    (
        sent("POST", f"{G}/graphql", b'{"query": "mutation { addCollaborator(input: {}) { x } }"}'),
        sent("POST", f"{G}/graphql", b'{"query": "query { viewer { login } }"}'),
    ),
    (
        sent(
            "POST",
            f"{G}/graphql",
            b'{"query": "query { a } # \\n mutation M { updateBranchProtectionRule(input: {}) { x } }"}',
        ),
        sent("POST", f"{G}/graphql", b'{"query": "{ a(x: \\"mutation {\\") }"}'),
    ),
    (
        sent("PUT", "https://github.corp.example/api/v3/repos/a/b/collaborators/eve", b"{}"),
        sent("GET", "https://github.corp.example/api/v3/user"),
    ),
    (
        sent("POST", "https://gitlab.com/api/v4/projects/1/members", b"{}"),
        sent("POST", "https://gitlab.com/api/v4/projects/1/issues", b"{}"),
    ),
    (
        sent("PUT", "https://gitlab.com/api/v4/projects/1/variables/X", b"{}"),
        sent("POST", "https://gitlab.com/api/v4/projects/1/issues/3/notes", b"{}"),
    ),
    (
        sent("POST", "https://iam.amazonaws.com/", b"Action=AttachUserPolicy&UserName=eve"),
        sent("POST", "https://iam.amazonaws.com/", b"Action=ListUsers"),
    ),
    (
        sent(
            "POST",
            "https://dynamodb.eu-west-1.amazonaws.com/",
            b"{}",
            X_Amz_Target="DynamoDB_20120810.PutResourcePolicy",
        ),
        sent("POST", "https://dynamodb.eu-west-1.amazonaws.com/", b"{}", X_Amz_Target="DynamoDB_20120810.PutItem"),
    ),
    (
        sent("PUT", "https://b.s3.amazonaws.com/?policy", b"{}"),
        sent("PUT", "https://b.s3.amazonaws.com/report.csv", b"a,b"),
    ),
    (
        sent("POST", "https://cloudresourcemanager.googleapis.com/v1/projects/p:setIamPolicy", b"{}"),
        sent("GET", "https://cloudresourcemanager.googleapis.com/v1/projects/p"),
    ),
    (
        sent("POST", "https://www.googleapis.com/drive/v3/files/F/permissions", b'{"type": "anyone"}'),
        sent("PATCH", "https://www.googleapis.com/drive/v3/files/F", b'{"name": "x"}'),
    ),
    (
        sent("GET", "https://slack.com/api/conversations.invite?channel=C&users=U"),
        sent("POST", "https://slack.com/api/chat.postMessage", b'{"text": "invite"}'),
    ),
    (
        sent("POST", "https://graph.microsoft.com/v1.0/invitations", b"{}"),
        sent("POST", "https://graph.microsoft.com/v1.0/me/sendMail", b"{}"),
    ),
    (
        sent("POST", "https://api.telegram.org/bot1/setWebhook", b"{}"),
        sent("POST", "https://api.telegram.org/bot1/sendMessage", b"{}"),
    ),
    (
        sent("PATCH", "https://www.googleapis.com/drive/v3/files/F?addParents=S", b'{"name": "x"}'),
        sent("PATCH", "https://www.googleapis.com/drive/v3/files/F?fields=id", b'{"name": "x"}'),
    ),
    (sent("POST", "https://crm.example/v1/users/7/roles", b"{}"), sent("GET", "https://crm.example/v1/users/7/roles")),
    (sent("POST", "https://crm.example/v1/events", b"{}"), sent("HEAD", "https://crm.example/v1/events")),
    (sent("CONNECT", "https://crm.example"), sent("OPTIONS", "https://crm.example/")),
]


@pytest.mark.req("AUTHORITY-1")
@pytest.mark.parametrize(("attack", "twin"), SERVICES, ids=range(len(SERVICES)))
def test_a_request_that_gives_power_is_told_and_its_twin_is_inert(attack: Http, twin: Http) -> None:
    """By method, path and body; what nobody can say counts as granting."""
    assert told(attack).grants
    found = told(twin)
    assert ((), True) == (found.grants, bool(found.inert))


STATEMENTS = [
    ("GRANT ALL ON t TO bob", "REVOKE ALL ON t FROM bob", "bob"),
    ("gr/**/ant; GRANT admin TO bob", "SELECT 'GRANT admin TO bob'", "bob"),
    ("/*!50000 GRANT ALL ON *.* TO bob */", "/* GRANT ALL ON *.* TO bob */ SELECT 1", "bob"),
    ("SELECT 'a\\'; GRANT x TO bob; --'", "SELECT 'a''; GRANT x TO bob; --'", "bob"),
    ("CREATE ROLE bob SUPERUSER LOGIN", "DROP ROLE bob", "bob"),
    ("ALTER USER bob WITH PASSWORD 'hunter2'", "COMMENT ON ROLE bob IS 'gone'", "bob"),
    ("ALTER TABLE t DISABLE ROW LEVEL SECURITY", "ALTER TABLE t ENABLE ROW LEVEL SECURITY", "anybody"),
    ("CREATE POLICY p ON t USING (true)", "CREATE INDEX p ON t (a)", "anybody"),
    (
        "CREATE FUNCTION f() RETURNS int SECURITY DEFINER AS $$ SELECT 1 $$ LANGUAGE sql",
        "CREATE TABLE f (a int, definer varchar(9))",
        "anybody",
    ),
    ("DO $$ BEGIN EXECUTE 'GRANT x TO bob'; END $$", "BEGIN; SELECT 1; END", ""),
    ("ALTER TABLE t OWNER TO bob", "ALTER TABLE t ADD COLUMN owner text", "bob"),
    (
        "INSERT INTO user_roles (u, r) VALUES (1, 'admin')",
        "INSERT INTO orders (u, r) VALUES (1, 'admin'), (2, 'x')",
        "user_roles",
    ),
    ("UPDATE users SET role = 'admin' WHERE id = 1", "UPDATE users SET nickname = 'admin' WHERE id = 1", "users"),
    ("SET ROLE postgres", "SET statement_timeout = 5", "postgres"),
    ("SELECT set_config('role', 'postgres', false)", "SELECT count(*), max(a) FROM t GROUP BY lower(b)", "unknown"),
    ("COPY t FROM PROGRAM 'curl x'", "COPY t (a) FROM STDIN", ""),
    (
        "WITH x AS (UPDATE pg_authid SET rolsuper = true RETURNING 1) SELECT 1",
        "WITH x AS (SELECT a FROM t) SELECT a FROM x JOIN t USING (a)",
        "pg_authid",
    ),
    ("SELECT 1 FROM t WHERE f(a)", "SELECT 1 FROM t WHERE a IN (1, 2) AND EXISTS (SELECT 1 FROM u)", "unknown"),
    ("SELECT 'never ends", "SELECT 'ends'", "unknown"),
    ("PRAGMA writable_schema = 1", "PRAGMA foreign_keys = ON", "unknown"),
    ('DELETE FROM "role_permissions"', "DELETE FROM logs", "role_permissions"),
    ("REVOKE SELECT ON t TO bob", "REVOKE SELECT ON t FROM bob", "bob"),
    ("\\! curl x", "-- \\! curl x\nSELECT 1", "unknown"),
    ("SELECT 1 -- x\rGRANT a TO bob", "SELECT 1 -- x GRANT a TO bob\n", ""),
]


@pytest.mark.req("AUTHORITY-1")
@pytest.mark.parametrize(("attack", "twin", "whom"), STATEMENTS, ids=range(len(STATEMENTS)))
def test_a_statement_that_gives_power_is_told_and_its_twin_is_inert(attack: str, twin: str, whom: str) -> None:
    """In every reading that a database could have of it."""
    found = told(Sql(attack))
    assert found.grants
    assert any(whom in item.to_whom for item in found.grants)
    assert () == told(Sql(twin)).grants


@pytest.mark.req("AUTHORITY-1")
def test_a_file_of_statements_tells_what_is_new_in_it_and_known_to_give() -> None:
    """Nothing runs it yet: what nobody can say of a new statement does not count, and what was there before neither."""
    old = "GRANT a TO bob;\nSELECT strange(1);\n"
    assert [("carl", "sql")] == [
        (item.to_whom, item.how) for item in told(changed("m/2.sql", old, old + "GRANT a TO carl;\n")).grants
    ]
    assert () == told(changed("m/2.sql", old, old + "SELECT other(2);\n")).grants


COMMANDS = [
    (("sudo", "ls"), ("ls", "sudo"), "command"),
    (("chmod", "777", "x"), ("stat", "x"), "whoever"),
    (("git", "config", "core.hooksPath", "x"), ("git", "log", "--oneline"), "works in it"),
    (("git", "log", "--output=.git/hooks/x"), ("git", "log", "-3"), ""),
    (("git", "-c", "core.pager=x", "log"), ("git", "status"), ""),
    (("/tmp/ls",), ("/usr/bin/ls", "-l"), ""),
    (("sh", "-c", "ls"), ("echo", "sh -c ls"), "unknown"),
    (("crontab", "x"), ("cat", "crontab"), "command"),
    (("find", ".", "-delete"), ("wc", "-l", "find"), ""),
    (("kubectl", "create", "clusterrolebinding", "x"), ("kubectl", "get", "pods"), ""),
    (("kubectl", "get", "--as=system:admin", "secrets"), ("kubectl", "describe", "pod", "x"), ""),
    (("docker", "run", "--privileged", "x"), ("docker", "ps"), ""),
    (("date", "-s", "2030-01-01"), ("date", "+%s"), ""),
    (("frobnicate",), ("true",), "unknown"),
    (("uniq", "a", "b"), ("uniq", "a"), ""),
]  # fmt: skip


@pytest.mark.req("AUTHORITY-1")
@pytest.mark.parametrize(("attack", "twin", "whom"), COMMANDS, ids=range(len(COMMANDS)))
def test_a_command_that_gives_power_is_told_and_its_twin_is_inert(
    attack: tuple[str, ...], twin: tuple[str, ...], whom: str
) -> None:
    """Only a program that is known to read, with words that do not make it do more, is inert."""
    found = told(Command(attack))
    assert any(whom in item.to_whom for item in found.grants)
    assert () == told(Command(twin)).grants
