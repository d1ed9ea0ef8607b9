"""Telling people: what a verification found, that it failed, that it did not run, and that all is well again.

alert.py        what is told, and which runs lead to it                    (pure)
sink.py         the protocol of those who carry it
log.py webhook.py sns.py securityhub.py     one module a sink
dispatch.py     each alert to each sink, once, again after a while, until it is taken
metrics.py      the last run of each level, for Prometheus
"""
