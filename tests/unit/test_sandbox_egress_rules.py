"""Egress rules: what may be asked for, held against every spelling of what may not."""

import pytest

from midwatch.config.specs import EgressRule
from midwatch.sandbox.egress_rules import Allow, Refuse, address_refusal, decide, problem

API = EgressRule("api.partner.net", methods=("GET", "POST"), paths=("/v1/*", "/health"))
OPEN = EgressRule("open.partner.net")
WILD = EgressRule("*.cdn.partner.net", methods=("GET",))
PLAIN = EgressRule("plain.partner.net", port=8080, tls=False)
INTERNAL = EgressRule("localhost", port=9000, tls=False, private=True)
WIKI = EgressRule("wiki", tls=False, private=True)
KEYED = EgressRule("keyed.partner.net", headers={"Authorization": "Bearer ${secret:KEY}"})
ALSO = EgressRule("keyed.partner.net", port=8443)
RULES = (API, OPEN, WILD, PLAIN, INTERNAL, WIKI, KEYED, ALSO)

LITERALS = [
    *("127.0.0.1", "127.1", "127.0.1", "0", "0.0.0.0", "1", "2130706433", "017700000001", "0177.0.0.1", "0x7f000001"),  # noqa: S104
    *("0x7f.1", "0x7F.0x0.0x0.0x1", "127.0.0.0x1", "127.0.0.1.", "169.254.169.254", "2852039166", "0xa9fea9fe"),
    *("0251.0376.0251.0376", "10.0.0.1", "192.168.0.1", "8.8.8.8", "1.1", "0x", "api.partner.net.1", "999.999.999.999"),
    *(
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[0:0:0:0:0:ffff:7f00:0001]",
        "[fe80::1%25eth0]",
        "[fe80::1]",
    ),
    *("[fd00:ec2::254]", "[64:ff9b::a9fe:a9fe]", "[2001:4860:4860::8888]", "::1", "fe80::1%eth0"),
    *("１２７.０.０.１", "127。0。0。1", "①②⑦.0.0.1", "⑯⑨.254.169.254", "0x7f000001.", "1２7.1"),
]
HOSTS = [
    *(
        "",
        ".",
        "..",
        ".api.partner.net",
        "api..partner.net",
        "api.partner.net..",
        "api.partner.net%00",
        "api.partner.net\x00",
    ),
    *(
        "api.partner.net@evil.net",
        "user:pass@api.partner.net",
        "evil.net\\@api.partner.net",
        "api.partner.net\\.evil.net",
    ),
    *(
        "api%2epartner.net",
        "%61pi.partner.net",
        "api.partner.net/",
        "api.partner.net#",
        "api.partner.net?",
        "api.partner.net\n",
    ),
    *(
        "api.partner.net\r\nHost: evil.net",
        "api.partner.net ",
        " api.partner.net",
        "api partner.net",
        "api.partner.net:443",
    ),
    *(
        "evil.net",
        "api.partner.net.evil.net",
        "xapi.partner.net",
        "partner.net",
        "net",
        "a.api.partner.net",
        "аpi.partner.net",
    ),
    *(
        "xn--pi-6kc.partner.net",
        "xn--.partner.net",
        "xn--a.partner.net",
        "xn--999999999.partner.net",
        "-api.partner.net",
    ),
    *(
        "api-.partner.net",
        "*.cdn.partner.net",
        "*",
        "cdn.partner.net",
        "xcdn.partner.net",
        "a" * 64 + ".cdn.partner.net",
    ),
    *(
        "LOCALHOST",
        "localhost",
        "localhost.",
        "a.localhost",
        "localhost.localdomain",
        "ip6-localhost",
        "host.docker.internal",
    ),
    *(
        "metadata.google.internal",
        "metadata",
        "instance-data",
        "kubernetes.default.svc",
        "printer.local",
        "router.lan",
        "intranet",
    ),
    *(
        "api\u200b.evil.net",
        "api．evil。net",
        "api.partner.net\u2024",
        "ａpi.evil.net",
        "api.partner.net\u3002evil.net",
        "wiki.partner.net",
    ),
]
PATHS = [
    *(
        "/v1/../admin",
        "/v1/..",
        "/v1/.",
        "/v1/./x/../../admin",
        "/v1/%2e%2e/admin",
        "/v1/%2E%2e/admin",
        "/v1/.%2e/admin",
    ),
    *(
        "/v1/%252e%252e/admin",
        "/v1/%25252e%25252e/admin",
        "/v1/..%2fadmin",
        "/v1/%2e%2e%2fadmin",
        "/v1/..%5cadmin",
        "/v1/..\\admin",
    ),
    *(
        "/v1//admin",
        "//v1/x",
        "/v1/%2fadmin",
        "/v1/%2Fadmin",
        "/v1%2fx",
        "/v1/%252fadmin",
        "/v1/%5c..%5cadmin",
        "/v1/x%00",
        "/v1/x%0a",
    ),
    *(
        "/v1/x%0d%0aHost:%20evil.net",
        "/v1/%",
        "/v1/%2",
        "/v1/%zz",
        "/v1/%u002e%u002e/",
        "/v1/%c0%ae%c0%ae/admin",
        "/v1/%c0%af",
        "/v1/%ff",
    ),
    *(
        "/v1/..;/admin",
        "/v1/..;a=b/admin",
        "/v1/;/x",
        "/v1/x;y",
        "/v1/．．/admin",
        "/v1/%ef%bc%8e%ef%bc%8e/admin",
        "/v1/%ef%bc%8fx",
    ),
    *(
        "/v1/x y",
        "/v1/x\t",
        "/v1/x#y",
        "/v1/x?y",
        "v1/x",
        "",
        "*",
        "/admin",
        "/V1/x",
        "/v1",
        "/",
        "/v12/x",
        "/health/x",
        "/v1/%7f",
    ),
    *("/v1/%c2%85", "/v1/%e2%80%a5/admin", "http://evil.net/v1/x"),
]


def reason(method: str, host: str, path: str = "/v1/x", **more: bool) -> str | None:
    """Give why a request is refused, None when it is allowed."""
    verdict = decide(RULES, method, host, None, path, **more)
    return verdict.reason if isinstance(verdict, Refuse) else None


@pytest.mark.req("EGRESS-1")
@pytest.mark.parametrize("host", LITERALS)
def test_an_address_is_refused_however_it_is_written(host: str) -> None:
    """No notation of an address is taken for a name, whatever the rules say."""
    everywhere = (*RULES, EgressRule(host, private=True), EgressRule("*." + host, private=True))
    assert isinstance(decide(everywhere, "GET", host, None, "/v1/x"), Refuse)
    assert isinstance(decide(everywhere, "CONNECT", host, 443, "", tunnel=True), Refuse)


@pytest.mark.req("EGRESS-1")
@pytest.mark.parametrize("host", HOSTS)
def test_a_host_that_no_rule_names_is_refused_however_it_is_written(host: str) -> None:
    """A spelling that another reader could take for an allowed host, or for this machine, is refused."""
    without = tuple(rule for rule in RULES if rule is not INTERNAL)
    assert isinstance(decide(without, "GET", host, None, "/v1/x"), Refuse)


@pytest.mark.req("EGRESS-2")
@pytest.mark.parametrize("path", PATHS)
def test_a_path_that_can_be_read_in_two_ways_is_refused(path: str) -> None:
    """A path outside the rule's globs is refused in every spelling that some server reads as outside."""
    assert reason("GET", "api.partner.net", path) is not None


BENIGN = [
    ("GET", "api.partner.net", None, "/v1/x", API, 443),
    ("POST", "api.partner.net", None, "/v1/x/y/z", API, 443),
    ("GET", "API.Partner.NET", None, "/v1/x", API, 443),
    ("GET", "api.partner.net.", None, "/v1/x", API, 443),
    ("GET", "api.partner.net", 443, "/v1/x", API, 443),
    ("GET", "api.partner.net", 80, "/v1/x", API, 443),
    ("GET", "api.partner.net", None, "/health", API, 443),
    ("GET", "api.partner.net", None, "/v1/", API, 443),
    ("GET", "api.partner.net", None, "/v1/%41", API, 443),
    ("GET", "api.partner.net", None, "/%76%31/x", API, 443),
    ("GET", "api.partner.net", None, "/v1/a%20b", API, 443),
    ("GET", "api.partner.net", None, "/v1/caf%C3%A9", API, 443),
    ("GET", "api.partner.net", None, "/v1/100%25", API, 443),
    ("GET", "api.partner.net", None, "/v1/a.b..c", API, 443),
    ("GET", "api.partner.net", None, "/v1/...", API, 443),
    ("GET", "api.partner.net", None, "/v1/.well-known", API, 443),
    ("GET", "api.partner.net", None, "/v1/a:b@c,d=e!$&'()*+~", API, 443),
    ("GET", "api.partner.net", None, "/v1/%E6%97%A5%E6%9C%AC", API, 443),
    ("GET", "open.partner.net", None, "/", OPEN, 443),
    ("DELETE", "open.partner.net", None, "/x", OPEN, 443),
    ("PATCH", "open.partner.net", None, "/x", OPEN, 443),
    ("OPTIONS", "open.partner.net", None, "/x", OPEN, 443),
    ("HEAD", "open.partner.net", None, "/x", OPEN, 443),
    ("GET", "open.partner.net", None, "/group%2Fproject", OPEN, 443),
    ("GET", "open.partner.net", None, "/web/2020/http://x.net/", OPEN, 443),
    ("GET", "open.partner.net", None, "/a;v=1", OPEN, 443),
    ("GET", "open.partner.net", None, "/a%2520b", OPEN, 443),
    ("GET", "a.cdn.partner.net", None, "/x", WILD, 443),
    ("GET", "b.a.cdn.partner.net", None, "/x", WILD, 443),
    ("GET", "a_b.cdn.partner.net", None, "/x", WILD, 443),
    ("GET", "xn--mnchen-3ya.cdn.partner.net", None, "/x", WILD, 443),
    ("GET", "münchen.cdn.partner.net", None, "/x", WILD, 443),
    ("GET", "1a.cdn.partner.net", None, "/x", WILD, 443),
    ("GET", "plain.partner.net", 8080, "/x", PLAIN, 8080),
    ("GET", "localhost", 9000, "/x", INTERNAL, 9000),
    ("GET", "wiki", None, "/x", WIKI, 80),
    ("GET", "keyed.partner.net", None, "/x", KEYED, 443),
    ("GET", "keyed.partner.net", 8443, "/x", ALSO, 8443),
]


@pytest.mark.req("EGRESS-3")
@pytest.mark.parametrize(("method", "host", "port", "path", "rule", "at"), BENIGN)
def test_what_a_rule_describes_is_allowed(
    method: str, host: str, port: int | None, path: str, rule: EgressRule, at: int
) -> None:
    """Ordinary spellings of an allowed request lead to its rule, and to the port that the rule means."""
    verdict = decide(RULES, method, host, port, path)
    assert isinstance(verdict, Allow), verdict
    assert (rule, at) == (verdict.rule, verdict.port)


@pytest.mark.req("EGRESS-3")
@pytest.mark.parametrize(
    "method", ["DELETE", "get", "Get", "CONNECT", "TRACE", "TRACK", "", "GET POST", "GET\r\n", "PURGÉ"]
)
def test_a_method_that_no_rule_allows_is_refused(method: str) -> None:
    """Methods are compared as they are; those that change the connection or echo the request are never sent."""
    assert reason(method, "api.partner.net") is not None


@pytest.mark.req("EGRESS-3")
def test_a_port_or_scheme_that_no_rule_names_is_refused() -> None:
    """A rule is for one port; `https://` is answered by a rule with `tls` alone."""
    for host, port, tls in [
        ("api.partner.net", 8443, False),
        ("api.partner.net", 80, True),
        ("plain.partner.net", None, False),
        ("plain.partner.net", 80, False),
        ("plain.partner.net", 8080, True),
        ("localhost", None, False),
    ]:
        assert isinstance(decide(RULES, "GET", host, port, "/v1/x", tls=tls), Refuse), (host, port, tls)
    assert isinstance(decide(RULES, "GET", "api.partner.net", None, "/v1/x", tls=True), Allow)
    assert isinstance(decide(RULES, "GET", "api.partner.net", 443, "/v1/x", tls=True), Allow)


@pytest.mark.req("EGRESS-4")
def test_a_tunnel_goes_only_where_nothing_needs_to_be_read() -> None:
    """A host with one rule that has methods, paths, headers or stage takes no tunnel, not even by another rule or port."""
    assert Allow(OPEN, "open.partner.net", 443, "") == decide(
        RULES, "CONNECT", "Open.Partner.net.", 443, "", tunnel=True
    )
    staged = EgressRule("open.partner.net", port=8443, stage=True)
    refused = [
        (RULES, "api.partner.net", 443),
        (RULES, "a.cdn.partner.net", 443),
        (RULES, "keyed.partner.net", 443),
        (RULES, "keyed.partner.net", 8443),
        (RULES, "open.partner.net", 80),
        (RULES, "open.partner.net", 22),
        (RULES, "evil.net", 443),
        ((*RULES, staged), "open.partner.net", 443),
        ((), "open.partner.net", 443),
    ]
    for rules, host, port in refused:
        assert isinstance(decide(rules, "CONNECT", host, port, "", tunnel=True), Refuse), (host, port)


@pytest.mark.req("EGRESS-5")
@pytest.mark.parametrize(
    ("address", "public", "private"),
    [
        ("93.184.216.34", True, True),
        ("2606:2800:220:1::1", True, True),
        ("::ffff:93.184.216.34", True, True),
        ("64:ff9b::5db8:d822", True, True),
        *((each, False, True) for each in ("127.0.0.1", "127.255.255.254", "10.1.2.3", "172.16.0.1", "172.31.255.255")),
        *((each, False, True) for each in ("192.168.1.1", "169.254.1.1", "100.64.0.1", "100.127.255.255", "192.0.0.8")),
        *(
            (each, False, True)
            for each in ("198.18.0.1", "::1", "fe80::1", "fe80::1%eth0", "fd12:3456::1", "fc00::1", "fec0::1")
        ),
        *(
            (each, False, True)
            for each in ("::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::a00:1")
        ),
        *(
            (each, False, False)
            for each in ("169.254.169.254", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "fd00:ec2::254")
        ),
        *((each, False, False) for each in ("169.254.170.2", "100.100.100.200", "168.63.129.16", "192.0.0.192")),
        *(
            (each, False, False)
            for each in ("0.0.0.0", "0.1.2.3", "::", "224.0.0.1", "239.1.1.1", "255.255.255.255", "240.0.0.1")  # noqa: S104
        ),
        *(
            (each, False, False)
            for each in ("ff02::1", "2002:7f00:1::", "2001:0:7f00:1::", "::127.0.0.1", "::ffff:0:127.0.0.1")
        ),
        *(
            (each, False, False)
            for each in ("100::1", "2001:db8::1", "192.0.2.1", "203.0.113.9", "4000::1", "x", "", "127.1")
        ),
    ],
)
def test_an_address_is_connected_to_only_where_hosts_are(address: str, public: bool, private: bool) -> None:
    """Addresses of this machine and its network need `private`; those of a machine's credentials are reached by nobody."""
    assert public == (address_refusal(address, private=False) is None)
    assert private == (address_refusal(address, private=True) is None)


@pytest.mark.req("EGRESS-6")
@pytest.mark.parametrize(
    "rule",
    [
        EgressRule("*"),
        EgressRule("*.com"),
        EgressRule("*.local", private=True),
        EgressRule("a.*.net"),
        EgressRule("127.0.0.1", private=True),
        EgressRule("localhost"),
        EgressRule("intranet"),
        EgressRule("https://x.net"),
        EgressRule("x.net:443"),
        EgressRule("x.net", port=0),
        EgressRule("x.net", port=65_536),
        EgressRule("x.net", methods=("get",)),
        EgressRule("x.net", methods=("CONNECT",)),
        EgressRule("x.net", methods=("TRACE",)),
        EgressRule("x.net", paths=("v1/*",)),
        EgressRule("x.net", headers={"Host": "y.net"}),
        EgressRule("x.net", headers={"Transfer-Encoding": "chunked"}),
        EgressRule("x.net", headers={"A b": "c"}),
        EgressRule("x.net", headers={"A": "b\r\nC: d"}),
        EgressRule("x.net", headers={"A": "${secret:}"}),
        EgressRule("x.net", headers={"A": "${env:KEY}"}),
        EgressRule("x.net", tls=False, headers={"A": "${secret:KEY}"}),
    ],
)
def test_a_wrong_rule_allows_nothing_and_says_why(rule: EgressRule) -> None:
    """A rule that cannot mean what it says is named with its remedy, and matches nothing."""
    assert problem(rule) is not None
    assert isinstance(decide((rule,), "GET", rule.host.replace("*", "a"), None, "/v1/x"), Refuse)


@pytest.mark.req("EGRESS-6")
def test_the_rules_of_these_tests_are_right() -> None:
    """What is used above as a good rule is one."""
    assert [None] * len(RULES) == [problem(rule) for rule in RULES]
