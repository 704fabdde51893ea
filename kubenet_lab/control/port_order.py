"""In which order the endpoint controllers write the ports of a slice: by a hash of Go's print of each.

Source: `pkg/api/v1/endpoints/util.go` and `staging/src/k8s.io/endpointslice/util/controller_utils.go`; the print is
`dump.ForHash` of `k8s.io/apimachinery/pkg/util/dump`.
"""

from __future__ import annotations

import functools
import hashlib

from kubenet_lab.objects import EndpointPort
from kubenet_lab.objects.endpoints import EndpointsPort


@functools.cache
def slice_port_order(port: EndpointPort) -> str:
    """The sort key of a port in an EndpointSlice: FNV-1a, 128 bits, in hexadecimal."""
    text = (
        f"(v1.EndpointPort){{Name:{_pointer('string', port.name)} Protocol:{_pointer('v1.Protocol', port.protocol)}"
        f" Port:{_pointer('int32', port.port)} AppProtocol:{_pointer('string', port.app_protocol)}}}"
    )
    number = 0x6C62272E07BB014262B821756295C58D
    for byte in text.encode():
        number = ((number ^ byte) * 0x1000000000000000000013B) & ((1 << 128) - 1)
    return f"{number:032x}"


@functools.cache
def endpoints_port_order(port: EndpointsPort) -> bytes:
    """The sort key of a port in an Endpoints object: MD5."""
    text = (
        f"(v1.EndpointPort){{Name:(string){port.name} Port:(int32){port.port} Protocol:(v1.Protocol){port.protocol}"
        f" AppProtocol:{_pointer('string', port.app_protocol)}}}"
    )
    return hashlib.md5(text.encode(), usedforsecurity=False).digest()


def _pointer(kind: str, value: object) -> str:
    return f"(*{kind}){'<nil>' if value is None else value}"
