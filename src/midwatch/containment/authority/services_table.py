"""Services: which requests of the usual services give somebody a right, and which are known to give none.

In:   nothing. Out: tables of (hosts, methods, path, what, to whom).
May import: nothing. Must not know: who sends, how a finding is shown.
Paths are matched whole, in lower case, in one spelling; `{}` is one part, `{*}` any number of them. `any` are all methods: a service
that takes an action by GET takes it by GET.
Source: REST references of GitHub, GitLab, Gitea, AWS, Google Cloud and Workspace, Microsoft Graph, Azure, Slack, Stripe, npm, Cloudflare.
"""

from __future__ import annotations

from typing import Final

__all__ = ["ACTIONS", "GRANTS", "GRAPHQL", "INERT", "READS", "Row"]

Row = tuple[tuple[str, ...], str, str, str, str]
_GITHUB: Final = ("api.github.com", "*.ghe.com", "github.*")
_GITLAB: Final = ("gitlab.com", "gitlab.*", "*.gitlab.*")
_GITEA: Final = ("gitea.*", "codeberg.org", "forgejo.*")
_GOOGLE: Final = ("*.googleapis.com",)
_MICROSOFT: Final = ("graph.microsoft.com", "*.azure.com", "*.windows.net", "*.microsoftonline.com")
_SLACK: Final = ("slack.com", "*.slack.com", "*.slack-gov.com")
_W: Final = "POST PUT PATCH"
_ALL: Final = "POST PUT PATCH DELETE"

GRANTS: Final[tuple[Row, ...]] = (
    # GitHub
    (_GITHUB, _W, "/repos/{}/{}/collaborators/{*}", "read, or write to, the repository", "the collaborator"),
    (_GITHUB, _ALL, "/repos/{}/{}/keys/{*}", "read, or push to, the repository with a key", "the holder of the key"),
    (_GITHUB, _W, "/user/{*}keys", "act as this account", "the holder of the key"),
    (_GITHUB, _W, "/{*}/hooks/{*}", "be told of what happens", "the address that is called"),
    (_GITHUB, _ALL, "/repos/{}/{}/branches/{}/protection/{*}", "push or merge what was protected", "whoever may write"),
    (_GITHUB, _ALL, "/{*}/rulesets/{*}", "push or merge what was protected", "whoever may write"),
    (_GITHUB, _ALL, "/{*}/actions/{*}", "run with other rights, secrets or machines", "continuous integration"),
    (_GITHUB, _ALL, "/{*}/secrets/{*}", "use another secret", "continuous integration"),
    (_GITHUB, _ALL, "/{*}/variables/{*}", "run with another setting", "continuous integration"),
    (_GITHUB, _ALL, "/{*}/environments/{*}", "deploy by other rules", "continuous integration"),
    (_GITHUB, _W, "/{*}/dispatches", "be run with the project's secrets", "continuous integration"),
    (_GITHUB, _W, "/{*}/invitations/{*}", "join", "whoever is invited"),
    (_GITHUB, _W, "/orgs/{}/{*}", "the rights of the organisation's members", "whoever is named"),
    (_GITHUB, _ALL, "/orgs/{}", "other rights of members", "members of the organisation"),
    (_GITHUB, _W, "/teams/{*}", "the rights of the team", "whoever is named"),
    (_GITHUB, _ALL, "/{*}/installations/{*}", "the rights that the installation has", "the application"),
    (_GITHUB, _W, "/app{*}", "the rights of the application", "the application"),
    (_GITHUB, _W, "/authorizations/{*}", "act as this account", "whoever has the token"),
    (_GITHUB, _W, "/repos/{}/{}/contents/.github/{*}", "be run with the project's secrets", "continuous integration"),
    (_GITHUB, _W, "/repos/{}/{}/transfer", "own the repository", "the new owner"),
    (_GITHUB, "PATCH", "/repos/{}/{}", "see or change the repository by other settings", "anybody"),
    (_GITHUB, _W, "/repos/{}/{}/pages/{*}", "publish under the project's name", "whoever may write"),
    (
        _GITHUB,
        _W,
        "/repos/{}/{}/pulls/{}/merge",
        "be part of the branch, and of what it deploys",
        "who wrote the change",
    ),
    (_GITHUB, _W, "/repos/{}/{}/merges", "be part of the branch, and of what it deploys", "who wrote the change"),
    (_GITHUB, _W, "/repos/{}/{}/pulls/{}/reviews/{*}", "be merged with this approval", "who wrote the change"),
    (_GITHUB, _W, "/repos/{}/{}/deployments/{*}", "be deployed", "who wrote the change"),
    (_GITHUB, _W, "/repos/{}/{}/git/{*}", "be part of the repository unseen", "who wrote the change"),
    (_GITHUB, _W, "/repos/{}/{}/statuses/{*}", "be taken for checked", "who wrote the change"),
    (_GITHUB, _W, "/repos/{}/{}/check-{*}", "be taken for checked", "who wrote the change"),
    # GitLab, Gitea
    (_GITLAB, _W, "/api/v4/{*}/members/{*}", "the rights of a member", "the member"),
    (_GITLAB, _W, "/api/v4/{*}/invitations/{*}", "join", "whoever is invited"),
    (_GITLAB, _W, "/api/v4/{*}/access_requests/{*}", "join", "whoever asked"),
    (
        _GITLAB,
        _W,
        "/api/v4/{*}/deploy_keys/{*}",
        "read, or push to, the repository with a key",
        "the holder of the key",
    ),
    (_GITLAB, _W, "/api/v4/{*}/{*}tokens/{*}", "act with a token", "whoever has the token"),
    (_GITLAB, _W, "/api/v4/{*}/hooks/{*}", "be told of what happens", "the address that is called"),
    (_GITLAB, _ALL, "/api/v4/{*}/protected_{*}", "push or merge what was protected", "whoever may write"),
    (_GITLAB, _ALL, "/api/v4/{*}/approval{*}", "be merged with other approvals", "who wrote the change"),
    (_GITLAB, _ALL, "/api/v4/{*}/variables/{*}", "run with another secret or setting", "continuous integration"),
    (_GITLAB, _W, "/api/v4/{*}/runners/{*}", "run what continuous integration runs", "the machine"),
    (_GITLAB, _W, "/api/v4/{*}/pipeline{*}", "be run with the project's secrets", "continuous integration"),
    (_GITLAB, _W, "/api/v4/{*}/trigger{*}", "set off continuous integration", "whoever has the token"),
    (_GITLAB, _W, "/api/v4/{*}/share/{*}", "the rights of a member", "the group"),
    (
        _GITLAB,
        _W,
        "/api/v4/{*}/merge_requests/{}/{*}merge",
        "be part of the branch, and of what it deploys",
        "who wrote the change",
    ),
    (_GITLAB, _W, "/api/v4/{*}/merge_requests/{}/approve", "be merged with this approval", "who wrote the change"),
    (_GITLAB, "PUT", "/api/v4/projects/{}", "see or change the project by other settings", "anybody"),
    (_GITLAB, _W, "/api/v4/user{*}", "act as an account", "whoever is named"),
    (_GITEA, _W, "/api/v1/{*}/collaborators/{*}", "read, or write to, the repository", "the collaborator"),
    (_GITEA, _W, "/api/v1/{*}/keys/{*}", "act with a key", "the holder of the key"),
    (_GITEA, _W, "/api/v1/{*}/hooks/{*}", "be told of what happens", "the address that is called"),
    (_GITEA, _ALL, "/api/v1/{*}/branch_protections/{*}", "push or merge what was protected", "whoever may write"),
    (_GITEA, _W, "/api/v1/{*}/tokens/{*}", "act with a token", "whoever has the token"),
    # Google
    (_GOOGLE, "any", "/{*}:setiampolicy", "the roles that the policy names", "whoever the policy names"),
    (_GOOGLE, _W, "/{*}/serviceaccounts/{*}", "act as the service account", "whoever has its key or role"),
    (_GOOGLE, "any", "/{*}:generate{*}token", "act as the service account", "whoever has the token"),
    (_GOOGLE, _W, "/{*}/permissions/{*}", "read, or change, the file", "whoever it is shared with"),
    (_GOOGLE, _W, "/{*}/acl/{*}", "see, or change, it", "whoever the list names"),
    (_GOOGLE, _W, "/{*}/{*}accesscontrols/{*}", "see, or change, it", "whoever the list names"),
    (_GOOGLE, _W, "/admin/directory/{*}", "an account, group or role of the organisation", "whoever is named"),
    (_GOOGLE, _W, "/gmail/{*}/settings/{*}", "get, or send, mail of this account", "whoever the setting names"),
    (_GOOGLE, _W, "/{*}/firewalls/{*}", "reach machines", "whoever the rule names"),
    (_GOOGLE, _W, "/{*}/roles/{*}", "more rights", "whoever has the role"),
    (_GOOGLE, _W, "/{*}/watch", "be told of what happens", "the address that is called"),
    (_GOOGLE, _W, "/{*}/changes/{*}", "be found under the name", "whoever the record names"),
    # Microsoft
    (_MICROSOFT, _W, "/{*}/roleassignments/{*}", "the role", "the principal that is named"),
    (_MICROSOFT, _W, "/{*}/roledefinitions/{*}", "more rights", "whoever has the role"),
    (_MICROSOFT, _W, "/{*}/invitations", "join", "whoever is invited"),
    (_MICROSOFT, _W, "/{*}/invite", "read, or change, the file", "whoever is invited"),
    (_MICROSOFT, _W, "/{*}/createlink", "read, or change, the file", "whoever has the link"),
    (_MICROSOFT, _W, "/{*}/permissions/{*}", "read, or change, the file", "whoever it is shared with"),
    (_MICROSOFT, _W, "/{*}/oauth2permissiongrants/{*}", "act as a person", "the application"),
    (_MICROSOFT, _W, "/{*}/approleassign{*}", "the role", "the application"),
    (_MICROSOFT, _W, "/{*}/members/{*}", "the rights of the group", "the member"),
    (_MICROSOFT, _W, "/{*}/owners/{*}", "own it", "the new owner"),
    (_MICROSOFT, _W, "/{*}/addpassword", "act as the application", "whoever has the password"),
    (_MICROSOFT, _W, "/{*}/subscriptions/{*}", "be told of what happens", "the address that is called"),
    (_MICROSOFT, _W, "/{*}/messagerules/{*}", "get mail of this account", "whoever the rule names"),
    # Slack
    (_SLACK, "any", "/api/conversations.invite{*}", "read the channel", "whoever is invited"),
    (_SLACK, "any", "/api/conversations.{*}share{*}", "read the channel", "whoever is invited"),
    (_SLACK, "any", "/api/admin.{*}", "what an administrator gives", "whoever is named"),
    (_SLACK, "any", "/api/users.admin.{*}", "join, or more rights", "whoever is named"),
    (_SLACK, "any", "/api/apps.{*}", "the rights of the application", "the application"),
    (_SLACK, "any", "/api/oauth.{*}", "act with a token", "whoever has the token"),
    (_SLACK, "any", "/api/files.sharedpublicurl", "read the file", "anybody"),
    (_SLACK, "any", "/api/usergroups.users.update", "what the group may do", "whoever is named"),
    (_SLACK, "any", "/api/workflows.{*}", "be run by what happens in the channel", "the workflow"),
    (_SLACK, "any", "/api/chat.command", "what the command does", "whoever the command names"),
    # Others
    (("registry.npmjs.org",), _ALL, "/-/{*}", "publish, or act with a token", "whoever is named"),
    (("registry.npmjs.org",), "PUT", "/{*}", "be installed by whoever uses the package", "who wrote it"),
    (("upload.pypi.org", "test.pypi.org"), _W, "/legacy", "be installed by whoever uses the package", "who wrote it"),
    (("crates.io", "*.crates.io"), _ALL, "/api/v1/crates/{*}", "publish, or own, the package", "whoever is named"),
    (
        ("api.cloudflare.com",),
        _ALL,
        "/client/v4/{*}",
        "be found under the name, or act for it",
        "whoever the record or token names",
    ),
    (("api.stripe.com",), _W, "/v1/webhook_endpoints/{*}", "be told of payments", "the address that is called"),
    (("api.stripe.com",), _W, "/v1/{*}account{*}", "be paid", "whoever is named"),
    (("api.telegram.org",), "any", "/{}/setwebhook", "be told of all messages", "the address that is called"),
    (
        ("discord.com", "discordapp.com"),
        _ALL,
        "/api/{*}/(?:webhooks|permissions|roles|invites|members|integrations){*}",
        "read, or act in, the channel",
        "whoever is named",
    ),
    (("api.dropboxapi.com",), "any", "/2/sharing/{*}", "read, or change, the file", "whoever it is shared with"),
    (
        ("api.box.com",),
        _ALL,
        "/2.0/(?:collaborations|webhooks|shared_items){*}",
        "read, or change, the file",
        "whoever is named",
    ),
    (
        ("api.heroku.com",),
        _ALL,
        "/{*}/(?:collaborators|members|config-vars|webhooks|permissions){*}",
        "act on the application",
        "whoever is named",
    ),
    (
        ("api.vercel.com",),
        _ALL,
        "/{*}/(?:env|members|webhooks|domains|tokens|aliases){*}",
        "act on the project",
        "whoever is named",
    ),
    (("hub.docker.com",), _ALL, "/v2/{*}", "push, or act with a token", "whoever is named"),
    (("*.auth0.com", "*.okta.com"), _ALL, "/api/{*}", "an account, a role, or what signs them in", "whoever is named"),
    (("*",), _ALL, "/apis/rbac.authorization.k8s.io/{*}", "a role in the cluster", "whoever the binding names"),
    (
        ("*",),
        _ALL,
        "/api/v1/namespaces/{}/(?:serviceaccounts|secrets|pods/{}/exec){*}",
        "act in the cluster",
        "whoever is named",
    ),
    (
        ("*",),
        _ALL,
        "/v1/(?:sys/(?:policy|policies|auth|mounts)|auth/token|identity){*}",
        "read secrets of the vault",
        "whoever is named",
    ),
    (("*",), _ALL, "/graphql", "what a mutation does that nobody can say", "unknown"),
)

INERT: Final[tuple[Row, ...]] = (
    (_GITHUB, "POST", "/repos/{}/{}/issues", "it opens an issue", ""),
    (_GITHUB, "POST PATCH", "/repos/{}/{}/issues/{}/comments", "it comments on an issue", ""),
    (_GITHUB, "PATCH DELETE", "/repos/{}/{}/issues/comments/{}", "it changes a comment", ""),
    (_GITHUB, "POST PUT DELETE", "/repos/{}/{}/issues/{}/labels/{*}", "it labels an issue", ""),
    (_GITHUB, "PATCH", "/repos/{}/{}/issues/{}", "it changes an issue", ""),
    (_GITHUB, "POST", "/repos/{}/{}/pulls", "it proposes a change, which others must accept", ""),
    (_GITHUB, "POST", "/repos/{}/{}/pulls/{}/comments", "it comments on a change", ""),
    (_GITHUB, "POST", "/{*}/reactions", "it reacts to something", ""),
    (_GITHUB, "POST", "/markdown", "it shows a text", ""),
    (_GITHUB, "POST", "/gists", "it publishes a text under a name of its own", ""),
    (_GITLAB, "POST PUT", "/api/v4/projects/{}/issues{*}", "it opens or changes an issue", ""),
    (_GITLAB, "POST", "/api/v4/projects/{}/(?:issues|merge_requests)/{}/notes", "it comments", ""),
    (_GITLAB, "POST", "/api/v4/projects/{}/merge_requests", "it proposes a change, which others must accept", ""),
    (_GITEA, "POST", "/api/v1/repos/{}/{}/issues{*}", "it opens an issue or comments", ""),
    (_SLACK, "any", "/api/chat.(?:postmessage|update|delete|postephemeral|schedulemessage)", "it says something", ""),
    (_SLACK, "any", "/api/reactions.(?:add|remove)", "it reacts to something", ""),
    (_SLACK, "any", "/api/files.(?:upload|getuploadurlexternal|completeuploadexternal)", "it uploads a file", ""),
    (_GOOGLE, "POST PUT PATCH", "/(?:upload/)?drive/v3/files{*}", "it makes or changes a file, and shares nothing", ""),
    (_GOOGLE, "POST PUT", "/v4/spreadsheets/{*}/values/{*}", "it writes into a table", ""),
    (_GOOGLE, "POST", "/(?:upload/)?gmail/v1/users/{}/(?:messages/send|drafts){*}", "it writes mail", ""),
    (_GOOGLE, "POST", "/v1/{*}:(?:search|query|predict|generatecontent)", "it asks something", ""),
    (_MICROSOFT, "POST", "/v1.0/{*}/(?:sendmail|messages)", "it writes mail", ""),
    (
        ("api.stripe.com",),
        "POST",
        "/v1/(?:customers|invoices|products|prices)/{*}",
        "it keeps books, and pays nobody",
        "",
    ),
    (("api.telegram.org",), "POST", "/{}/(?:sendmessage|sendphoto|senddocument)", "it says something", ""),
    (("discord.com", "discordapp.com"), "POST", "/api/{*}/messages", "it says something", ""),
    (
        ("api.openai.com", "api.anthropic.com"),
        "POST",
        "/v1/(?:chat/completions|responses|messages|embeddings|moderations)",
        "it asks a model",
        "",
    ),
    (("*",), "POST", "/{*}/_search", "it asks something", ""),
)

READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})

ACTIONS: Final = (
    r"(?:Add|Attach|Put|Create|Update|Set|Upload|Associate|Enable|Reset|Change|"
    r"Register|Modify|Replace|Import|Authorize|Share|Assume|Grant|Accept|Invite|Tag"
    r"|Get(?:SessionToken|FederationToken|AuthorizationToken|SecretValue|PasswordData)|"
    r"Delete\w*(?:Polic|Boundar|Block)|Remove\w*(?:Polic|Block)|Revoke\w*Egress|"
    r"Detach\w*Polic|Deactivate|Disable|Stop\w*Logging)\w*"
)
"""Actions of AWS that change who may do what, where the service is about that; elsewhere those whose name says so."""

GRAPHQL: Final = (
    r"(?:add|create|update|delete|remove|set|enable|disable|accept|invite|transfer|"
    r"merge|approve|revert|regenerate|grant|revoke|dismiss|mark|move|import|start)\w*"
    r"(?:collaborator|member|key|token|hook|protection|ruleset|rule|secret|environment|"
    r"deployment|app|integration|role|permission|invitation|owner|admin|repository|"
    r"branch|ref|commit"
    r"|pullrequest|review|allowlist|ip|saml|verif|enterprise|organization|sponsor|"
    r"policy|runner|variable|pipeline|schedule|namespace|group|project)\w*"
)
