"""The accepted methods, equal for all versions of HTTP. Methods are case-sensitive (RFC 9110 §9.1)."""

from __future__ import annotations

OF_LLHTTP = frozenset(
    b"ACL BIND CHECKOUT CONNECT COPY DELETE GET HEAD LINK LOCK M-SEARCH MERGE MKACTIVITY MKCALENDAR MKCOL MOVE NOTIFY"
    b" OPTIONS PATCH POST PROPFIND PROPPATCH PURGE PUT QUERY REBIND REPORT SEARCH SOURCE SUBSCRIBE TRACE UNBIND UNLINK"
    b" UNLOCK UNSUBSCRIBE".split()
)
"""Methods that llhttp accepts: most of IANA's registry, and some unregistered ones that are in use."""
REGISTERED_BESIDES = frozenset(
    b"BASELINE-CONTROL CHECKIN LABEL MKREDIRECTREF MKWORKSPACE ORDERPATCH UNCHECKOUT UPDATE UPDATEREDIRECTREF"
    b" VERSION-CONTROL".split()
)
"""The rest of the registry, except PRI, which is the preface of HTTP/2."""
METHODS = OF_LLHTTP | REGISTERED_BESIDES
