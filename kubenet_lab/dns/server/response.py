"""What kind of answer a message is: `cache` keeps and `log` filters by it (CoreDNS's plugin/pkg/response)."""

from __future__ import annotations

from kubenet_lab.dns.records import Response


def classify(answer: Response) -> str:
    """success, nxdomain, nodata, servererror, delegation, meta or other."""
    question = answer.question
    if question is not None and question.type in ("AXFR", "IXFR"):
        return "meta"
    rcode = answer.rcode
    if answer.answer:
        if rcode == "NXDOMAIN":
            return "other"
        if rcode == "NOERROR":
            return "success"
    if rcode == "NOERROR" and any(record.type == "SOA" for record in answer.authority):
        return "nodata"
    if rcode == "NXDOMAIN":
        return "nxdomain"
    if rcode in ("SERVFAIL", "NOTIMP"):
        return "servererror"
    if rcode == "NOERROR":
        return "delegation" if any(record.type == "NS" for record in answer.authority) else "success"
    return "other"
