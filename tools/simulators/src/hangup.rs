//! Cuts the connection of a request, as a gateway does whose network fails. It answers nothing.

use std::any::Any;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;

use actix_web::HttpRequest;
use actix_web::dev::Extensions;

/// A second handle of a connection's socket.
#[derive(Debug)]
struct Line(TcpStream);

/// To be given to `HttpServer::on_connect`: remembers the socket of each connection.
pub(crate) fn remember(io: &dyn Any, data: &mut Extensions) {
    let Some(stream) = io.downcast_ref::<actix_web::rt::net::TcpStream>() else {
        return;
    };
    match stream.as_fd().try_clone_to_owned() {
        Ok(socket) => drop(data.insert(Line(TcpStream::from(socket)))),
        Err(error) => tracing::warn!(%error, "this connection cannot be cut"),
    }
}

/// Closes the connection both ways; whatever is answered afterwards reaches nobody.
pub(crate) fn cut(request: &HttpRequest) {
    if let Some(line) = request.conn_data::<Line>()
        && let Err(error) = line.0.shutdown(Shutdown::Both)
    {
        tracing::debug!(%error, "the peer had already hung up");
    }
}
