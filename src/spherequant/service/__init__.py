"""Room 7: the HTTP service over a living index, and its page.

One asyncio process. A request is read within bounds, waits in bounded stages, and is answered from
one snapshot of the index. One subject a file:

    settings      what an operator may set, and every bound
    schemas       what travels: requests and answers (pydantic alone, for clients too)
    problems      every error as a problem document (RFC 9457)
    access        API keys: who may read, who may write
    protection    hosts, origins and headers; what is logged of a request
    forms         multipart forms, piece by piece
    batches       batches as JSON, one entry at a time
    bodies        uploads, read within bounds of size and time
    filters       which filters a stranger may ask with
    stages        worker threads that take tasks in batches from a bounded queue
    room          memory that decoded images may take together
    metrics       what Prometheus reads
    scanning      many searches of one snapshot at once
    processors    shared among the threads that embed
    engine        an index that many ask and change at once
    context       what the routes share
    searching, items, pictures, collection, operations    the routes
    application   the FastAPI application
    connections   bounds on connections and on slow clients
    server        the process: its socket, its signals, its end
    transport     one request of a client: sent, repeated, its answer judged
    client        a service asked from Python

Importing this package loads none of its libraries.
"""
