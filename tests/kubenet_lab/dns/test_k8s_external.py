"""`k8s_external` beside its recorded answers (test_answers.py): reverse zones, the root zone, odd stanzas.

The cases follow plugin/k8s_external and plugin/kubernetes/external.go of CoreDNS.
"""

from __future__ import annotations

import pytest

from kubenet_lab.dns.records import Query, Response
from kubenet_lab.dns.server.coredns import CoreDNS
from kubenet_lab.dns.server.corefile import CorefileError
from kubenet_lab.dns.server.view import ServiceView

OBJECTS = [
    {"kind": "Namespace", "metadata": {"name": "shop"}},
    {
        "kind": "Service",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {
            "clusterIP": "10.96.0.9",
            "externalIPs": ["203.0.113.8", "2001:db8::8"],
            "ports": [{"name": "http", "port": 80}],
        },
    },
]
COREFILE = ".:53 {\n kubernetes cluster.local {\n  endpoint http://api\n }\n k8s_external %s {\n  %s\n }\n whoami\n}\n"
REVERSE = "8.113.0.203.in-addr.arpa."
V6 = "8.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa."


def server(zones: str, options: str = "ttl 7") -> CoreDNS:
    return CoreDNS(COREFILE % (zones, options), ServiceView.from_objects(OBJECTS))


def ask(running: CoreDNS, name: str, kind: str) -> Response:
    answer = running.answer(Query(name, kind))
    assert answer is not None
    return answer


@pytest.mark.parametrize("name", [REVERSE, V6])
def test_an_outside_address_is_named_below_the_first_zone(name: str) -> None:
    running = server("example.org in-addr.arpa ip6.arpa")
    assert [str(record) for record in ask(running, name, "PTR").answer] == [
        f"{name} 7 IN PTR web.shop.example.org."
    ]


def test_reverse_names_that_are_not_served() -> None:
    running = server("example.org in-addr.arpa")
    unknown = ask(running, "9.113.0.203.in-addr.arpa.", "PTR")
    assert (unknown.rcode, unknown.answer) == ("NXDOMAIN", ())
    assert unknown.authority[0].name == "in-addr.arpa."
    assert ask(running, "8.0.96.10.in-addr.arpa.", "PTR").rcode == "NXDOMAIN", (
        "a ClusterIP is no outside address"
    )
    assert ask(running, REVERSE, "A").rcode == "NXDOMAIN"
    forward = ask(running, "web.shop.example.org.", "PTR")
    assert (forward.rcode, forward.answer) == ("NOERROR", ())


def test_a_reverse_name_follows_its_service() -> None:
    view = ServiceView.from_objects(OBJECTS)
    running = CoreDNS(COREFILE % ("example.org in-addr.arpa", "ttl 7"), view)
    view.apply({**OBJECTS[1], "spec": {"externalIPs": ["203.0.113.9"], "ports": [{"port": 80}]}})
    assert ask(running, REVERSE, "PTR").rcode == "NXDOMAIN"
    moved = "9.113.0.203.in-addr.arpa."
    assert ask(running, moved, "PTR").answer[0].target == "web.shop.example.org."
    view.delete("Service", "shop", "web")
    assert ask(running, moved, "PTR").rcode == "NXDOMAIN"


def test_the_root_zone_is_a_zone_like_any_other() -> None:
    running = server("")
    assert [record.data for record in ask(running, "web.shop.", "A").answer] == ["203.0.113.8"]
    served = ask(running, "_http._tcp.web.shop.", "SRV")
    assert {record.data for record in served.answer} == {"0 50 80 web.shop."}
    assert ask(running, ".", "NS").answer[0].target == "ns1.dns."
    assert ask(running, ".", "SOA").answer[0].data.startswith("ns1.dns. hostmaster.dns. ")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("headless yes", "Corefile:6 - Error during parsing: unknown property 'yes'"),
        (
            "ttl",
            "Corefile:6 - Error during parsing: Wrong argument count or unexpected line ending after 'ttl'",
        ),
        ("ttl 1h", 'strconv.Atoi: parsing "1h": invalid syntax'),
        ("ttl -1", "Corefile:6 - Error during parsing: ttl must be in range [0, 3600]: -1"),
        (
            "apex",
            "Corefile:6 - Error during parsing: Wrong argument count or unexpected line ending after 'apex'",
        ),
        ("headles", "Corefile:6 - Error during parsing: unknown property 'headles'"),
    ],
)
def test_options_it_refuses(options: str, says: str) -> None:
    with pytest.raises(CorefileError) as refused:
        server("example.org", options)
    assert str(refused.value).startswith("plugin/k8s_external: ")
    assert str(refused.value).endswith(says)


def test_a_second_stanza_changes_the_zones_and_keeps_the_options() -> None:
    running = server("example.org", "ttl 7\n }\n k8s_external example.net {\n  apex names")
    assert ask(running, "web.shop.example.net.", "A").answer[0].ttl == 7
    assert ask(running, "example.net.", "NS").answer[0].target == "ns1.names.example.net."
    assert ask(running, "web.shop.example.org.", "A").answer == ()
