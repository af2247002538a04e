//! Is it ready? Each kind of part is asked in its own protocol, over plain TCP on loopback.
//!
//! Just enough of HTTP and of Kafka's protocol to ask one question; no client library, which would need a C compiler.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

/// The longest a single question may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// More than any answer here; the rest is not read.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// How a part is asked whether it is ready.
#[derive(Debug, Clone)]
pub(crate) enum Probe {
    /// A broker that names itself in its metadata.
    Kafka { port: u16 },
    /// Status 200 on this path; the reasons are taken from the body otherwise.
    Http { port: u16, path: String },
    /// The line that Postgres writes for `pg_ctl -w`.
    Postgres { pid_file: PathBuf },
}

impl Probe {
    /// Asks once; the error says why it is not ready.
    pub(crate) fn ask(&self) -> Result<(), String> {
        match self {
            Self::Kafka { port } => kafka(*port).map_err(|error| error.to_string()),
            Self::Http { port, path } => http(*port, path),
            Self::Postgres { pid_file } => postgres(&fs::read_to_string(pid_file).unwrap_or_default()),
        }
    }
}

fn connect(port: u16) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), ANSWER_WITHIN)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    stream.set_write_timeout(Some(ANSWER_WITHIN))?;
    Ok(stream)
}

/// Asks for the metadata of no topic (api 3, version 4) and wants a broker in the answer.
fn kafka(port: u16) -> std::io::Result<()> {
    const REQUEST: [u8; 23] = [
        0, 0, 0, 19, // length of what follows
        0, 3, 0, 4, // Metadata, version 4
        0, 0, 0, 7, // correlation ID
        0, 4, b'u', b'p', b'?', b'?', // client ID
        0, 0, 0, 0, // no topics
        0, // create none
    ];
    let mut stream = connect(port)?;
    stream.write_all(&REQUEST)?;
    // Length, correlation ID, throttle time, number of brokers.
    let mut answer = [0_u8; 16];
    stream.read_exact(&mut answer)?;
    match answer {
        [_, _, _, _, 0, 0, 0, 7, _, _, _, _, high, brokers @ ..] if high == 0 && brokers != [0, 0, 0] => Ok(()),
        _ => Err(std::io::Error::new(ErrorKind::NotConnected, "no broker has registered yet")),
    }
}

fn http(port: u16, path: &str) -> Result<(), String> {
    let answer = get(port, path).map_err(|error| error.to_string())?;
    match status(&answer) {
        Some(200) => Ok(()),
        Some(code) => Err(reasons(&answer).unwrap_or_else(|| format!("it answers {code}"))),
        None => Err("its answer is not HTTP".to_owned()),
    }
}

/// The whole answer to a GET, headers included.
fn get(port: u16, path: &str) -> std::io::Result<String> {
    let mut stream = connect(port)?;
    // In one piece: each part of a `write!` would be a packet of its own.
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: application/json\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn status(answer: &str) -> Option<u16> {
    let mut words = answer.split_whitespace();
    words.next()?.starts_with("HTTP/1.").then_some(())?;
    words.next()?.parse().ok()
}

/// `reasons` of the body of `/readyz`; a chunked body is found by its braces.
fn reasons(answer: &str) -> Option<String> {
    let body: Value = serde_json::from_str(answer.get(answer.find('{')?..=answer.rfind('}')?)?).ok()?;
    let reasons: Vec<&str> = body.get("reasons")?.as_array()?.iter().filter_map(Value::as_str).collect();
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

/// Line 8 of `postmaster.pid` is Postgres' own word on it.
fn postgres(pid_file: &str) -> Result<(), String> {
    match pid_file.lines().nth(7).map(str::trim) {
        Some("ready") => Ok(()),
        Some(state) => Err(format!("it says `{state}`")),
        None => Err("it has not begun to listen".to_owned()),
    }
}

/// Whether nobody listens on this port of loopback.
pub(crate) fn port_is_free(port: u16) -> bool {
    // The standard library sets SO_REUSEADDR, so that connections of an earlier run in TIME_WAIT do not count.
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn answering(answer: &'static [u8]) -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let _bytes = stream.read(&mut request).unwrap();
            stream.write_all(answer).unwrap();
        });
        port
    }

    #[test]
    fn a_200_is_ready() {
        let port = answering(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(http(port, "/readyz"), Ok(()));
    }

    #[test]
    fn a_503_says_its_reasons() {
        let port = answering(b"HTTP/1.1 503 Service Unavailable\r\n\r\n{\"ready\":false,\"reasons\":[\"a\",\"b\"]}");
        assert_eq!(http(port, "/readyz"), Err("a; b".to_owned()));
    }

    #[test]
    fn a_503_without_reasons_says_its_number() {
        let port = answering(b"HTTP/1.1 503 Service Unavailable\r\n\r\n");
        assert_eq!(http(port, "/readyz"), Err("it answers 503".to_owned()));
    }

    #[test]
    fn a_broker_that_knows_no_broker_is_not_ready() {
        let none = answering(&[0, 0, 0, 12, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert!(kafka(none).is_err());
        let one = answering(&[0, 0, 0, 12, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert!(kafka(one).is_ok());
    }

    #[test]
    fn postgres_is_ready_when_it_says_so() {
        let file = "1\n/data\n2\n15432\n\n127.0.0.1\n 3 4\nready   \n";
        assert_eq!(postgres(file), Ok(()));
        assert!(postgres(&file.replace("ready   ", "starting")).is_err());
        assert!(postgres("").is_err());
    }

    #[test]
    fn a_taken_port_is_not_free() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        assert!(!port_is_free(listener.local_addr().unwrap().port()));
    }
}
