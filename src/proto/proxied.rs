//! The PROXY protocol, version 2: a proxy says before the first byte for whom it connects.
//!
//! <https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt>, section 2.2. Version 1, which is a line of text, is not
//! taken.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};
use tokio::io::{AsyncRead, AsyncReadExt};

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, on somebody's behalf.
const PROXY: u8 = 0x21;
/// Version 2, on the proxy's own: for instance a check.
const LOCAL: u8 = 0x20;
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;
/// Addresses and whatever else stands behind the fixed part, at most.
const MAX_REST: usize = 4 << 10;

/// What a connection on behalf of `from` begins with; its port is not told. Without `from` it is on our own.
pub fn header(from: Option<IpAddr>) -> Vec<u8> {
    let mut bytes = SIGNATURE.to_vec();
    match from.map(|from| from.to_canonical()) {
        None => bytes.extend([LOCAL, 0, 0, 0]),
        Some(IpAddr::V4(from)) => {
            bytes.extend([PROXY, TCP4, 0, 12]);
            bytes.extend(from.octets());
            bytes.extend(Ipv4Addr::UNSPECIFIED.octets());
            bytes.extend([0; 4]);
        }
        Some(IpAddr::V6(from)) => {
            bytes.extend([PROXY, TCP6, 0, 36]);
            bytes.extend(from.octets());
            bytes.extend(Ipv6Addr::UNSPECIFIED.octets());
            bytes.extend([0; 4]);
        }
    }
    bytes
}

/// Reads the header: for whom the connection is, `None` when it is the proxy's own.
///
/// # Errors
/// `InvalidData` for whatever does not begin with one.
pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<SocketAddr>> {
    let invalid = |why| io::Error::new(io::ErrorKind::InvalidData, why);
    let mut fixed = [0; 16];
    stream.read_exact(&mut fixed).await?;
    let [.., command, family, high, low] = fixed;
    if fixed[..12] != SIGNATURE || !matches!(command, PROXY | LOCAL) {
        return Err(invalid("no PROXY protocol header, version 2"));
    }
    let len = usize::from(u16::from_be_bytes([high, low]));
    if len > MAX_REST {
        return Err(invalid("the PROXY protocol header is too large"));
    }
    let mut rest = vec![0; len];
    stream.read_exact(&mut rest).await?;
    match (command, family) {
        (PROXY, TCP4) => source(&rest, 12, |ip: [u8; 4]| ip.into()).map(Some).ok_or(invalid("addresses are cut off")),
        (PROXY, TCP6) => source(&rest, 36, |ip: [u8; 16]| ip.into()).map(Some).ok_or(invalid("addresses are cut off")),
        _ => Ok(None),
    }
}

/// Source and destination address, then the source's port.
fn source<const N: usize>(rest: &[u8], len: usize, ip: impl Fn([u8; N]) -> IpAddr) -> Option<SocketAddr> {
    let addresses = rest.get(..len)?;
    let port = u16::from_be_bytes(*addresses.get(2 * N..)?.first_chunk()?);
    Some(SocketAddr::new(ip(*addresses.first_chunk()?), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read_back(bytes: &[u8]) -> Result<Option<IpAddr>, io::ErrorKind> {
        let read = read(&mut { bytes }).await;
        read.map(|from| from.map(|from| from.ip())).map_err(|error| error.kind())
    }

    #[tokio::test]
    async fn who_is_told_is_read() {
        for from in ["10.1.2.3", "2001:db8::7"] {
            let from: IpAddr = from.parse().expect("an address");
            assert_eq!(read_back(&header(Some(from))).await, Ok(Some(from)));
        }
        assert_eq!(read_back(&header(None)).await, Ok(None));
        let mut more = header(Some(Ipv4Addr::LOCALHOST.into()));
        more[15] += 3;
        more.extend([4, 0, 0]);
        assert_eq!(read_back(&more).await, Ok(Some(Ipv4Addr::LOCALHOST.into())), "with more behind the addresses");
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused() {
        use io::ErrorKind::{InvalidData, UnexpectedEof};
        let whole = header(Some(Ipv4Addr::LOCALHOST.into()));
        let mut short = whole.clone();
        short[15] = 3;
        let mut large = whole.clone();
        large[14] = 0xff;
        let mut old = whole.clone();
        old[12] = 0x11;
        for (bytes, kind) in [
            (&b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"[..], InvalidData),
            (b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n", InvalidData),
            (&whole[..20], UnexpectedEof),
            (&short, InvalidData),
            (&large, InvalidData),
            (&old, InvalidData),
            (b"", UnexpectedEof),
        ] {
            assert_eq!(read_back(bytes).await, Err(kind), "{bytes:?}");
        }
    }
}
