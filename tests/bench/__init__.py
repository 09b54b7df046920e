"""lockkit beside its floors and the locks of other projects: ``python tests/bench``, or ``make bench``.

The benches of one host are those of ``lockkit bench``, with other libraries taking turns. On Redis, etcd and
ZooKeeper a private server is started for the run. A library or a server that is not installed is left out.
"""
