//! Which ports are taken, and by whom.
//!
//! Linux only, like everything here that reads `/proc`.

use std::fs;

use anyhow::Result;

use crate::probe;
use crate::problem::Problem;
use crate::settings::Settings;

/// Fails on the first port of a stack that somebody listens on.
///
/// # Errors
/// [`Problem::PortTaken`].
pub(crate) fn check(settings: &Settings, instances: u16) -> Result<()> {
    for (part, port) in settings.all_ports(instances)? {
        if !probe::port_is_free(port) {
            let by = listener(port).unwrap_or_else(|| "a process that this user cannot see".to_owned());
            return Err(Problem::PortTaken { part, port, by }.into());
        }
    }
    Ok(())
}

/// The first base of `candidates` above which every port of a stack is free.
pub(crate) fn free_base(candidates: impl Iterator<Item = u16>, instances: u16) -> Option<u16> {
    candidates.into_iter().find(|base| {
        let settings = Settings::new(Some(*base));
        settings.is_ok_and(|settings| check(&settings, instances).is_ok())
    })
}

/// Name and number of the process that listens on a port.
fn listener(port: u16) -> Option<String> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| fs::read_to_string(table).unwrap_or_default());
    let inode = tables.iter().find_map(|table| listening_inode(table, port))?;
    let socket = format!("socket:[{inode}]");
    fs::read_dir("/proc").ok()?.flatten().find_map(|process| {
        let pid = process.file_name().to_str()?.parse::<u32>().ok()?;
        let holds = fs::read_dir(process.path().join("fd"))
            .ok()?
            .flatten()
            .any(|fd| fs::read_link(fd.path()).is_ok_and(|target| target.as_os_str() == socket.as_str()));
        let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
        holds.then(|| format!("{} (process {pid})", name.trim()))
    })
}

/// The inode of the socket that listens on `port`, from a table of `/proc/net`.
fn listening_inode(table: &str, port: u16) -> Option<&str> {
    const LISTEN: &str = "0A";
    table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (_, hex) = fields.get(1)?.rsplit_once(':')?;
        let listens = *fields.get(3)? == LISTEN && u16::from_str_radix(hex, 16).ok()? == port;
        listens.then(|| fields.get(9).copied())?
    })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_listener_is_named() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let by = listener(socket.local_addr().unwrap().port()).unwrap();
        assert!(by.contains(&format!("process {}", std::process::id())), "{by}");
    }

    #[test]
    fn a_connection_is_no_listener() {
        let line = "0: 0100007F:4A94 00000000:0000 01 00000000:00000000 00:00000000 00000000 0 0 4711 1";
        assert_eq!(listening_inode(line, 0x4A94), None);
        assert_eq!(listening_inode(&line.replace(" 01 ", " 0A "), 0x4A94), Some("4711"));
    }

    #[test]
    fn a_base_with_a_taken_port_is_passed_over() {
        let taken = (1..)
            .map(|number| 24_000 + number * 300)
            .find_map(|base| Some((base, TcpListener::bind(("127.0.0.1", base)).ok()?)));
        let (base, _socket) = taken.unwrap();
        assert_ne!(free_base([base, base + 300].into_iter(), 1), Some(base));
    }
}
