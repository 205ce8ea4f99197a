"""HTTP/1.1 on llhttp (httptools): heads, client connections and their pool."""
