"""What stands at the edge: new connections, TLS, HTTP/2, bodies, gRPC."""
