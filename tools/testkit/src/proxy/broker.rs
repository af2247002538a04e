//! Answers of a broker, whole, with the proxy's port where they name the broker's.
//!
//! No answer is parsed: a host is followed by its port wherever Kafka names one.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt};

const ANSWER_BYTES_MAX: usize = 256 << 20;
/// Brokers are named at the beginning of an answer, or at its end; between them lie records.
const EDGE_BYTES: usize = 4096;

/// The next answer; nothing at the end.
pub(super) async fn answer(
    from: &mut (impl AsyncRead + Unpin),
    there: SocketAddr,
    here: SocketAddr,
) -> io::Result<Option<Vec<u8>>> {
    let length = match from.read_u32().await {
        Ok(length) => length,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    let size = 4 + length as usize;
    if size > ANSWER_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut answer = length.to_be_bytes().to_vec();
    answer.resize(size, 0);
    from.read_exact(&mut answer[4..]).await?;
    let (first, last) = (EDGE_BYTES.min(size), size.saturating_sub(EDGE_BYTES));
    rename(&mut answer[..first], there, here);
    rename(&mut answer[last..], there, here);
    Ok(Some(answer))
}

fn rename(bytes: &mut [u8], there: SocketAddr, here: SocketAddr) {
    let name = |address: SocketAddr| {
        let mut name = address.ip().to_string().into_bytes();
        name.extend(u32::from(address.port()).to_be_bytes());
        name
    };
    let (there, here) = (name(there), name(here));
    let windows = bytes.windows(there.len()).enumerate();
    let places: Vec<usize> = windows.filter(|(_, window)| *window == there).map(|(at, _)| at).collect();
    for at in places {
        bytes[at..at + here.len()].copy_from_slice(&here);
    }
}
