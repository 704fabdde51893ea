"""What the kubelet gives a pod: resolv.conf, host name and /etc/hosts (kubelet's pkg/kubelet/network/dns).

https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/ says what a pod may ask for; the
limits and what happens beyond them are the kubelet's own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from kubenet_lab.dns.names import parse_ip
from kubenet_lab.errors import KubenetLabError

MAX_NAMESERVERS = 3
MAX_SEARCHES = 32
MAX_SEARCH_LINE = 2048
MAX_NAME = 253
RESOLV_CONF = "/etc/resolv.conf"
_MAX_HOSTNAME = 63
_MAX_FQDN = 64
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


class SandboxError(KubenetLabError):
    """The kubelet refuses to make the pod's sandbox; the text is its own."""


class KubeletDns(Struct, frozen=True):
    """The kubelet's DNS settings (KubeletConfiguration).

    Attributes:
        cluster_dns: `clusterDNS`, the Service address of the cluster's DNS.
        cluster_domain: `clusterDomain`.
        resolv_conf: Text of the node's file; None if the setting `resolvConf` is empty.
        resolv_conf_missing: The file the setting names does not exist.
        node_ips: Matter only when `resolv_conf` is None.
    """

    cluster_dns: tuple[str, ...] = ("10.96.0.10",)
    cluster_domain: str = "cluster.local"
    resolv_conf: str | None = ""
    resolv_conf_missing: bool = False
    node_ips: tuple[str, ...] = ()


class PodDns(Struct, frozen=True):
    """What goes to the container runtime, and what the kubelet reports about it (`Type Reason Message`)."""

    nameservers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    events: tuple[str, ...] = ()

    @property
    def is_nodes_own(self) -> bool:
        """All three lists are empty: the runtime copies the node's /etc/resolv.conf."""
        return not (self.nameservers or self.searches or self.options)

    def text(self, node_resolv_conf: str = "") -> str:
        """The pod's /etc/resolv.conf, as containerd and CRI-O write it."""
        if self.is_nodes_own:
            return node_resolv_conf
        lines = [f"search {' '.join(self.searches)}"] if self.searches else []
        lines += [f"nameserver {server}" for server in self.nameservers]
        lines += [f"options {' '.join(self.options)}"] if self.options else []
        return "\n".join(lines) + "\n"


class HostName(Struct, frozen=True):
    """A pod's name and domain; `kernel` is what `hostname` prints in it."""

    name: str
    domain: str = ""
    kernel: str = ""

    @property
    def fqdn(self) -> str:
        """Name and domain."""
        return f"{self.name}.{self.domain}" if self.domain else self.name


def pod_dns(pod: object, kubelet: KubeletDns) -> PodDns:
    """The DNS settings of a pod: a manifest as plain dict, or a typed object.

    Raises SandboxError if the node's resolv.conf is missing or has a `nameserver` line without an address.
    """
    manifest = _manifest(pod)
    spec = manifest.get("spec") or {}
    servers, searches, options = _node_settings(kubelet)
    events: list[str] = []
    policy = spec.get("dnsPolicy") or ""
    if policy == "None":
        servers, searches, options = [], [], []
    else:
        from_node = policy == "Default" or (policy == "ClusterFirst" and spec.get("hostNetwork"))
        if not from_node and not kubelet.cluster_dns:
            events += _missing(manifest)
            from_node = True
        if not from_node:
            servers = [parse_ip(ip) or ip for ip in kubelet.cluster_dns]
            searches = _cluster_searches(searches, _namespace(manifest), kubelet.cluster_domain)
            options = ["ndots:5"]
        elif kubelet.resolv_conf is None:
            # An empty setting means no names at all: a resolver would ask the machine itself.
            servers = ["::1" if ":" in ip else "127.0.0.1" for ip in kubelet.node_ips] or ["127.0.0.1"]
            searches = ["."]
    config = spec.get("dnsConfig")
    if config is not None:
        servers = list(dict.fromkeys([*servers, *(config.get("nameservers") or ())]))
        searches = list(dict.fromkeys([*searches, *(config.get("searches") or ())]))
        options = _merge(options, config.get("options") or ())
    if len(servers) > MAX_NAMESERVERS:
        servers = servers[:MAX_NAMESERVERS]
        events.append(
            "Warning DNSConfigForming Nameserver limits were exceeded, some nameservers have been omitted, "
            f"the applied nameserver line is: {' '.join(servers)}"
        )
    fitting = _fit(searches)
    if fitting != searches:
        events.append(
            "Warning DNSConfigForming Search Line limits were exceeded, some search paths have been omitted, "
            f"the applied search line is: {' '.join(fitting)}"
        )
    return PodDns(tuple(servers), tuple(fitting), tuple(options), tuple(events))


def check_node(kubelet: KubeletDns) -> tuple[str, ...]:
    """What a starting kubelet reports about the node's resolv.conf (`CheckLimitsForResolvConf`)."""
    prefix = "Warning CheckLimitsForResolvConf "
    if kubelet.resolv_conf_missing:
        return (f"{prefix}open {RESOLV_CONF}: no such file or directory",)
    if kubelet.resolv_conf is None:
        return ()
    try:
        _, searches, _ = _parse(kubelet.resolv_conf)
    except SandboxError as error:
        return (f"{prefix}{error}",)
    limit = MAX_SEARCHES - (3 if kubelet.cluster_domain else 0)
    if len(searches) > limit:
        what = (
            f"Resolv.conf file '{RESOLV_CONF}' contains search line consisting of more than {limit} domains!"
        )
    elif any(len(search) > MAX_NAME for search in searches):
        what = (
            f'Resolv.conf file "{RESOLV_CONF}" contains a search path which length is more than allowed '
            f"{MAX_NAME} chars!"
        )
    elif len(" ".join(searches)) > MAX_SEARCH_LINE:
        what = (
            f"Resolv.conf file '{RESOLV_CONF}' contains search line which length is more than allowed "
            f"{MAX_SEARCH_LINE} chars!"
        )
    else:
        return ()
    return (prefix + what,)


def host_name(pod: object, cluster_domain: str = "cluster.local") -> HostName:
    """The host name of a pod. Raises SandboxError where the kubelet refuses.

    `hostnameOverride` wins and drops the domain; else `hostname` or the pod's name, cut to 63 characters,
    with the domain of `subdomain`.
    """
    found = _host_name(pod, cluster_domain)
    spec = _manifest(pod).get("spec") or {}
    kernel = found.fqdn if found.domain and spec.get("setHostnameAsFQDN") else found.name
    if len(kernel) > _MAX_FQDN:
        raise SandboxError(
            f"failed to construct FQDN from pod hostname and cluster domain, FQDN {kernel} is too long "
            f"({_MAX_FQDN} characters is the max, {len(kernel)} characters requested)"
        )
    return HostName(found.name, found.domain, kernel)


def hosts_text(
    pod: object, pod_ips: tuple[str, ...], cluster_domain: str = "cluster.local", node_hosts: str = ""
) -> str:
    """The /etc/hosts the kubelet writes for a pod. Raises SandboxError for a bad host name.

    `node_hosts` is the node's own file, which a pod on the host's network gets.
    """
    manifest = _manifest(pod)
    spec = manifest.get("spec") or {}
    if spec.get("hostNetwork"):
        text = "# Kubernetes-managed hosts file (host network).\n" + node_hosts
    else:
        found = _host_name(manifest, cluster_domain)
        names = f"{found.fqdn}\t{found.name}" if found.domain else found.name
        text = (
            "# Kubernetes-managed hosts file.\n"
            "127.0.0.1\tlocalhost\n"
            "::1\tlocalhost ip6-localhost ip6-loopback\n"
            "fe00::0\tip6-localnet\n"
            "fe00::0\tip6-mcastprefix\n"
            "fe00::1\tip6-allnodes\n"
            "fe00::2\tip6-allrouters\n"
        ) + "".join(f"{ip}\t{names}\n" for ip in pod_ips)
    aliases = spec.get("hostAliases") or ()
    if aliases:
        text += "\n# Entries added by HostAliases.\n"
        text += "".join(f"{each['ip']}\t" + "\t".join(each.get("hostnames") or ()) + "\n" for each in aliases)
    return text


def _host_name(pod: object, cluster_domain: str) -> HostName:
    manifest = _manifest(pod)
    spec = manifest.get("spec") or {}
    if spec.get("hostnameOverride") is not None:
        return HostName(_cut(_name(manifest), _subdomain(spec["hostnameOverride"])))
    name = _name(manifest)
    if spec.get("hostname"):
        name = _label("Hostname", spec["hostname"])
    name = _cut(_name(manifest), name)
    domain = ""
    if spec.get("subdomain"):
        domain = f"{_label('Subdomain', spec['subdomain'])}.{_namespace(manifest)}.svc.{cluster_domain}"
    return HostName(name, domain)


def _label(field: str, text: str) -> str:
    faults: list[str] = []
    if len(text) > _MAX_HOSTNAME:
        faults.append(f"must be no more than {_MAX_HOSTNAME} bytes")
    if not _LABEL.fullmatch(text):
        faults.append(
            "must not contain dots"
            if "." in text
            else "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', "
            "and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex "
            f"used for validation is '{_LABEL.pattern}')"
        )
    if faults:
        raise SandboxError(f'pod {field} "{text}" is not a valid DNS label: {";".join(faults)}')
    return text


def _subdomain(text: str) -> str:
    if _SUBDOMAIN.fullmatch(text) and len(text) <= MAX_NAME:
        return text
    faults = [f"must be no more than {MAX_NAME} bytes"] if len(text) > MAX_NAME else []
    if not _SUBDOMAIN.fullmatch(text):
        faults.append(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', "
            "and must start and end with an alphanumeric character (e.g. 'example.com', regex used for "
            "validation is "
            f"'{_SUBDOMAIN.pattern}')"
        )
    raise SandboxError(f'pod HostnameOverride "{text}" is not a valid DNS subdomain: {";".join(faults)}')


def _cut(pod: str, name: str) -> str:
    if len(name) <= _MAX_HOSTNAME:
        return name
    cut = name[:_MAX_HOSTNAME].rstrip("-.")
    if not cut:
        raise SandboxError(f'hostname for pod "{pod}" was invalid: "{name}"')
    return cut


def _manifest(pod: object) -> Mapping[str, Any]:
    return pod if isinstance(pod, Mapping) else msgspec.to_builtins(pod)


def _name(manifest: Mapping[str, Any]) -> str:
    return str((manifest.get("metadata") or {}).get("name", ""))


def _namespace(manifest: Mapping[str, Any]) -> str:
    return str((manifest.get("metadata") or {}).get("namespace") or "default")


def _missing(manifest: Mapping[str, Any]) -> list[str]:
    why = (
        'kubelet does not have ClusterDNS IP configured and cannot create Pod using "ClusterFirst" policy. '
        'Falling back to "Default" policy.'
    )
    uid = (manifest.get("metadata") or {}).get("uid", "")
    pod = f"{_name(manifest)}_{_namespace(manifest)}({uid})"
    return [f"Warning MissingClusterDNS {why}", f'Warning MissingClusterDNS pod: "{pod}". {why}']


def _node_settings(kubelet: KubeletDns) -> tuple[list[str], list[str], list[str]]:
    if kubelet.resolv_conf_missing:
        raise SandboxError(f"open {RESOLV_CONF}: no such file or directory")
    if kubelet.resolv_conf is None:
        return [], [], []
    try:
        return _parse(kubelet.resolv_conf)
    except SandboxError as error:
        raise SandboxError(f"Encountered error while parsing resolv conf file. Error: {error}") from None


def _parse(text: str) -> tuple[list[str], list[str], list[str]]:
    """The node's file as the kubelet reads it, which is not as libc does: `domain` counts for nothing."""
    servers: list[str] = []
    searches: list[str] = []
    options: dict[str, str] = {}
    for line in text.split("\n"):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if words[0] == "nameserver":
            if len(words) < 2:
                raise SandboxError("nameserver list is empty ")
            servers.append(words[1])
        elif words[0] == "search":
            searches = [word.removesuffix(".") for word in words[1:] if word != "."]
        elif words[0] == "options":
            options.update((word.partition(":")[0], word) for word in words[1:])
    return servers, searches, list(options.values())


def _cluster_searches(node: list[str], namespace: str, domain: str) -> list[str]:
    if not domain:
        return node
    return list(dict.fromkeys([f"{namespace}.svc.{domain}", f"svc.{domain}", domain, *node]))


def _merge(options: list[str], wanted: Any) -> list[str]:
    merged = {}
    for option in options:
        name, _, value = option.partition(":")
        merged[name] = value
    merged.update((option.get("name") or "", option.get("value") or "") for option in wanted)
    return [f"{name}:{value}" if value else name for name, value in merged.items()]


def _fit(searches: list[str]) -> list[str]:
    fitting = [search for search in searches[:MAX_SEARCHES] if len(search) <= MAX_NAME]
    while len(" ".join(fitting)) > MAX_SEARCH_LINE:
        fitting.pop()
    return fitting
