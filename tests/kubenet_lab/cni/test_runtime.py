"""The runtime's part: reading configurations in libcni's words, the cache, CHECK, GC, STATUS, capability arguments."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kubenet_lab.cni.gojson import fault_of
from kubenet_lab.cni.plugin import CniError, Result
from kubenet_lab.cni.runtime import CONF_DIR, MISSING, NotInitialized, Runtime, node_network, parse
from kubenet_lab.control.machine import build_node
from kubenet_lab.kernel.network import Network

from .recorded import Recording, sandbox

BRIDGE = {
    "type": "bridge",
    "isGateway": True,
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.22.0.0/24"}]]},
}


def conflist(**more: Any) -> str:
    return json.dumps({"cniVersion": "1.1.0", "name": "net1", "plugins": [BRIDGE], **more})


def host() -> Recording:
    network = Network()
    build_node(network, "node-1")
    return Recording(network, "node-1")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "unexpected end of JSON input"),
        ("{", "unexpected end of JSON input"),
        ("{nope", "invalid character 'n' looking for beginning of object key string"),
        ('{"a" 1}', "invalid character '1' after object key"),
        ('{"a": 1 "b"}', "invalid character '\"' after object key:value pair"),
        ("[1 2]", "invalid character '2' after array element"),
        ('{"a": tru}', "invalid character '}' in literal true (expecting 'e')"),
        ('{"a": 01}', "invalid character '1' after object key:value pair"),
        ('{"a": "\\x"}', "invalid character 'x' in string escape code"),
        ("{} {}", "invalid character '{' after top-level value"),
        ("'a'", "invalid character '\\'' looking for beginning of value"),
        ('{"a": [1, 2.5e3, null, true, "x"]}', ""),
    ],
)
def test_what_is_no_json_is_told_in_gos_words(text: str, says: str) -> None:
    assert fault_of(text) == says


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[]", "json: cannot unmarshal array into Go value of type map[string]interface {}"),
        ('{"plugins": []}', "no name"),
        ('{"name": 5, "plugins": []}', "invalid name type float64"),
        (conflist(cniVersion=1), "invalid cniVersion type float64"),
        (conflist(plugins={}), "invalid 'plugins' type map[string]interface {}"),
        (conflist(plugins=[]), "no plugins in list"),
        (conflist(disableCheck="perhaps"), 'invalid value "perhaps" for disableCheck'),
        (conflist(disableGC=3), "invalid type float64 for disableGC"),
        (conflist(cniVersions="1.0.0"), "invalid type for cniVersions: string"),
        (
            '{"name": "n", "loadOnlyInlinedPlugins": true}',
            "`loadOnlyInlinedPlugins` is true, and no 'plugins' key",
        ),
    ],
)
def test_a_broken_list_is_told_in_libcnis_words(text: str, says: str) -> None:
    with pytest.raises(CniError) as caught:
        parse(text)
    assert caught.value.msg == f"error parsing configuration list: {says}"


def test_a_plugin_without_type_is_named_by_its_place() -> None:
    with pytest.raises(CniError) as caught:
        parse(conflist(plugins=[BRIDGE, {}]))
    assert caught.value.msg == "failed to parse plugin config 1: error parsing configuration: missing 'type'"


def test_the_newest_offered_version_counts() -> None:
    assert parse(conflist(cniVersion="0.4.0", cniVersions=["1.0.0", "0.3.1", "9.9.9"])).version == "1.0.0"
    assert parse(conflist(cniVersion="1.0.0")).version == "1.0.0"


def test_plugins_of_a_folder_are_added_to_the_inlined_ones() -> None:
    """`/etc/cni/net.d/NAME/*.conf`, by name, unless `loadOnlyInlinedPlugins`."""
    runtime = host()
    node = runtime.node
    path = f"{CONF_DIR}/10-net.conflist"
    node.files[f"{CONF_DIR}/net1/20-b.conf"] = '{"type": "tuning"}'
    node.files[f"{CONF_DIR}/net1/10-a.conf"] = '{"type": "portmap"}'
    node.files[path] = conflist()
    assert [p["type"] for p in node_network(node).plugins] == ["bridge", "portmap", "tuning"]
    node.files[path] = conflist(loadOnlyInlinedPlugins=True)
    assert [p["type"] for p in node_network(node).plugins] == ["bridge"]
    node.files[path] = '{"cniVersion": "1.1.0", "name": "net1"}'
    assert [p["type"] for p in node_network(node).plugins] == ["portmap", "tuning"]
    del node.files[f"{CONF_DIR}/net1/20-b.conf"], node.files[f"{CONF_DIR}/net1/10-a.conf"]
    with pytest.raises(NotInitialized) as caught:
        node_network(node)
    assert "10-net.conflist: no plugin configs found: invalid cni config" in caught.value.log


def test_only_wished_capabilities_reach_a_plugin() -> None:
    runtime = host()
    plugins = [BRIDGE, {"type": "portmap", "capabilities": {"portMappings": True, "mac": False}}]
    given = {
        "portMappings": [{"hostPort": 80, "containerPort": 80, "protocol": "tcp"}],
        "mac": "x",
        "ips": [],
    }
    runtime.add(
        parse(conflist(plugins=plugins)), "c1", sandbox(runtime.network, "node-1", "c1"), capabilities=given
    )
    [bridge, portmap] = [conf for _, conf in runtime.inputs]
    assert "runtimeConfig" not in bridge
    assert portmap["runtimeConfig"] == {"portMappings": given["portMappings"]}
    assert "capabilities" not in portmap
    assert portmap["prevResult"]["ips"][0]["address"] == "10.22.0.2/24"


def test_check_is_left_out_with_disable_check() -> None:
    runtime = host()
    path = sandbox(runtime.network, "node-1", "c1")
    runtime.add(parse(conflist()), "c1", path)
    runtime.network.ns("c1").delete_link("eth0")
    runtime.check(parse(conflist(disableCheck=True)), "c1", path)
    with pytest.raises(CniError, match="Interface name eth0 not found"):
        runtime.check(parse(conflist()), "c1", path)


def test_gc_deletes_cached_attachments_that_nobody_has() -> None:
    """DEL of each stale one, then the plugins' GC with the list of valid ones; twice is no error."""
    runtime = host()
    conf = parse(conflist())
    for name in ("c1", "c2", "c3"):
        runtime.add(conf, name, sandbox(runtime.network, "node-1", name))
    runtime.inputs.clear()
    assert runtime.collect(conf, (("c2", "eth0"),)) == []
    assert [name for name, _ in runtime.inputs] == ["bridge", "bridge", "bridge"]
    assert runtime.inputs[-1][1]["cni.dev/valid-attachments"] == [{"containerID": "c2", "ifname": "eth0"}]
    leases = [p for p in runtime.node.files if p.startswith("/var/lib/cni/networks/net1/10")]
    assert leases == ["/var/lib/cni/networks/net1/10.22.0.3"]
    assert list(runtime.network.ns("c1").links) == ["lo"]
    assert list(runtime.network.ns("c2").links) == ["lo", "eth0"]
    assert runtime.collect(conf, (("c2", "eth0"),)) == []
    assert runtime.collect(parse(conflist(disableGC=True)), ()) == []
    assert "eth0" in runtime.network.ns("c2").links


def test_status_asks_every_plugin_from_1_1_0_on() -> None:
    runtime = host()
    missing = [{**BRIDGE, "ipam": {"type": "nosuch"}}]
    runtime.status(parse(conflist(cniVersion="1.0.0", plugins=missing)))
    with pytest.raises(CniError, match="failed to find plugin"):
        runtime.status(parse(conflist(plugins=missing)))


def test_an_executable_that_is_not_installed() -> None:
    runtime = host()
    runtime.node.files[MISSING] = "/opt/cni/bin/host-local\n"
    with pytest.raises(CniError) as caught:
        runtime.add(parse(conflist()), "c1", sandbox(runtime.network, "node-1", "c1"))
    assert caught.value.msg == (
        'plugin type="bridge" failed (add): failed to find plugin "host-local" in path [/opt/cni/bin]'
    )


def test_results_of_every_version_read_back() -> None:
    runtime = host()
    result = runtime.add(parse(conflist()), "c1", sandbox(runtime.network, "node-1", "c1"))
    for version in ("0.1.0", "0.2.0"):
        old = Result.from_json(result.to_json(version))
        assert [ip.address for ip in old.ips] == ["10.22.0.2/24"]
        assert old.to_json(version) == result.to_json(version)
    for version in ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"):
        assert Result.from_json(result.to_json(version)) == result


def test_one_runtime_may_have_more_plugins() -> None:
    """A learner's own plugin stands beside the installed ones."""
    from kubenet_lab.cni import PLUGINS, Plugin
    from kubenet_lab.cni.loopback import plugin as loopback

    mine = Plugin(name="mine", add=loopback.add, delete=loopback.delete, check=loopback.check)
    runtime = host()
    own = Runtime(runtime.network, "node-1", (*PLUGINS, mine))
    conf = parse(conflist(plugins=[{"type": "mine"}]))
    result = own.add(conf, "c1", sandbox(runtime.network, "node-1", "c1"))
    assert result.interfaces[0].name == "lo"
