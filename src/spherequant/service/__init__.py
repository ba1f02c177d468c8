"""Room 7: the HTTP service over a living index, and its page.

One asyncio process. A request is read within bounds, waits in bounded stages, and is answered from
one snapshot of the index. One subject a file:

    settings      what an operator may set, and every bound
    schemas       what travels: requests and answers (pydantic alone, for clients too)
    problems      every error as a problem document (RFC 9457)
    access        API keys: who may read, who may write
    protection    hosts, origins and headers; what is logged of a request
    bodies        uploads, read within bounds of size and time
    filters       which filters a stranger may ask with
    stages        worker threads that take tasks in batches from a bounded queue
    metrics       what Prometheus reads
    engine        an index that many ask and change at once
    application   the FastAPI application
    searching, items, pictures, collection, operations    its routes
    server        the process: sockets, signals, slow clients

Importing this package loads none of its libraries.
"""
