//! `relay H:P TO [KIB]`: bytes from one TCP connection to another, as plainly as can be, through a buffer of 64 KiB or as
//! many as are said.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    thread,
};

fn main() -> io::Result<()> {
    let mut args = std::env::args().skip(1);
    let (Some(listen), Some(to)) = (args.next(), args.next()) else { panic!("relay H:P TO [KIB]") };
    let buffer = args.next().map_or(64, |kib| kib.parse().expect("KIB is a number")) << 10;
    for inside in TcpListener::bind(listen)?.incoming() {
        let (inside, outside) = (inside?, TcpStream::connect(&to)?);
        inside.set_nodelay(true)?;
        outside.set_nodelay(true)?;
        for (from, to) in [(inside.try_clone()?, outside.try_clone()?), (outside, inside)] {
            thread::spawn(move || copy(from, to, buffer));
        }
    }
    Ok(())
}

/// By hand: the library's own copy would splice.
fn copy(mut from: TcpStream, mut to: TcpStream, buffer: usize) -> io::Result<()> {
    let mut buf = vec![0; buffer];
    loop {
        match from.read(&mut buf)? {
            0 => return to.shutdown(Shutdown::Write),
            n => to.write_all(&buf[..n])?,
        }
    }
}
