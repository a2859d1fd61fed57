//! An MQTT client that says exactly what a test wants, packet by packet.

// Each test file uses a part of it.
#![allow(dead_code)]

use crate::common::PATIENCE;
use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    time::Duration,
};

pub const CONNACK: u8 = 0x20;
pub const PUBACK: u8 = 0x40;
pub const SUBACK: u8 = 0x90;
pub const PINGRESP: u8 = 0xd0;
pub const DISCONNECT: u8 = 0xe0;

/// A text or bytes behind their length.
pub fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat()
}

/// A whole packet.
pub fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let (mut out, mut length) = (vec![first], body.len());
    loop {
        let digit = (length & 0x7f) as u8;
        length >>= 7;
        out.push(if length > 0 { digit | 0x80 } else { digit });
        if length == 0 {
            return [out, body.to_vec()].concat();
        }
    }
}

/// What came.
#[derive(Debug, Clone, PartialEq)]
pub struct Packet {
    pub first: u8,
    pub body: Vec<u8>,
}

/// A message, taken apart.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    pub again: bool,
    pub id: Option<u16>,
    pub topic: String,
    /// 5.0: properties and payload as they came.
    pub rest: Vec<u8>,
}

impl Message {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.rest).into_owned()
    }
}

impl Packet {
    pub fn is_message(&self) -> bool {
        self.first >> 4 == 3
    }

    pub fn message(&self) -> Message {
        assert!(self.is_message(), "no message: {self:?}");
        let length = usize::from(u16::from_be_bytes([self.body[0], self.body[1]]));
        let (topic, rest) = self.body[2..].split_at(length);
        let (id, rest) = match self.first >> 1 & 3 {
            0 => (None, rest),
            _ => (Some(u16::from_be_bytes([rest[0], rest[1]])), &rest[2..]),
        };
        let topic = String::from_utf8(topic.to_vec()).expect("UTF-8");
        Message { again: self.first & 8 != 0, id, topic, rest: rest.to_vec() }
    }
}

/// A connection.
pub struct Client {
    pub stream: TcpStream,
}

impl Client {
    /// Connected by TCP, nothing said.
    pub fn open(port: u16) -> Self {
        let stream = TcpStream::connect(("localhost", port)).expect("an MQTT listener");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        stream.set_nodelay(true).expect("no delay");
        Client { stream }
    }

    /// 3.1.1, let in. Says whether there was a session.
    pub fn connect(port: u16, name: &str, clean: bool) -> (Self, bool) {
        let body = [&b"\0\x04MQTT\x04"[..], &[if clean { 2 } else { 0 }, 0, 0], &text(name)].concat();
        let mut client = Client::open(port);
        client.send(0x10, &body);
        let answer = client.next().expect("a CONNACK");
        assert_eq!((answer.first, answer.body[1]), (CONNACK, 0));
        (client, answer.body[0] == 1)
    }

    /// 5.0, with these properties; the CONNACK.
    pub fn connect5(port: u16, name: &str, clean: bool, properties: &[u8]) -> (Self, Packet) {
        let flags = [if clean { 2 } else { 0 }, 0, 0, properties.len() as u8];
        let body = [&b"\0\x04MQTT\x05"[..], &flags, properties, &text(name)].concat();
        let mut client = Client::open(port);
        client.send(0x10, &body);
        let answer = client.next().expect("a CONNACK");
        assert_eq!(answer.first, CONNACK);
        (client, answer)
    }

    /// 5.0 with a password, let in.
    pub fn log_in(port: u16, name: &str, password: &str) -> Self {
        let login = [text(name), text("any"), text(password)].concat();
        let mut client = Client::open(port);
        client.send(0x10, &[&b"\0\x04MQTT\x05\xc2\0\0\0"[..], &login].concat());
        let answer = client.next().expect("a CONNACK");
        assert_eq!((answer.first, answer.body[1]), (CONNACK, 0));
        client
    }

    pub fn send(&mut self, first: u8, body: &[u8]) {
        self.say(&packet(first, body));
    }

    /// Bytes as they are; a server that has closed already is no failure here.
    pub fn say(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Subscribes in 3.1.1; the code.
    pub fn subscribe(&mut self, filter: &str, qos: u8) -> u8 {
        self.subscribe_with(b"", filter, qos)
    }

    /// Subscribes in 5.0; the code.
    pub fn subscribe5(&mut self, filter: &str, options: u8) -> u8 {
        self.subscribe_with(b"\0", filter, options)
    }

    fn subscribe_with(&mut self, properties: &[u8], filter: &str, options: u8) -> u8 {
        self.send(0x82, &[&b"\0\x63"[..], properties, &text(filter), &[options]].concat());
        let answer = self.next().expect("a SUBACK");
        assert_eq!((answer.first, &answer.body[..2]), (SUBACK, &b"\0\x63"[..]));
        *answer.body.last().expect("a code")
    }

    pub fn acknowledge(&mut self, id: u16) {
        self.send(PUBACK, &id.to_be_bytes());
    }

    /// The next packet; `None` when the connection is closed.
    pub fn next(&mut self) -> Option<Packet> {
        let mut first = [0];
        self.fill(&mut first)?;
        let (mut length, mut shift) = (0, 0);
        loop {
            let mut digit = [0];
            self.fill(&mut digit)?;
            length |= usize::from(digit[0] & 0x7f) << shift;
            shift += 7;
            if digit[0] & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; length];
        self.fill(&mut body)?;
        Some(Packet { first: first[0], body })
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Option<()> {
        match self.stream.read_exact(bytes) {
            Ok(()) => Some(()),
            Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => None,
            Err(error) => panic!("waited for a packet: {error}"),
        }
    }

    /// The next message.
    pub fn message(&mut self) -> Message {
        self.next().expect("a message").message()
    }

    /// Nothing came before the answer to a ping.
    pub fn heard_nothing(&mut self) {
        self.send(0xc0, b"");
        assert_eq!(self.next().map(|packet| packet.first), Some(PINGRESP));
    }

    /// The reason of a server's DISCONNECT, behind which the connection is closed.
    pub fn dismissed(&mut self) -> u8 {
        let last = self.next().expect("a DISCONNECT");
        assert_eq!((last.first, self.next()), (DISCONNECT, None));
        last.body[0]
    }

    /// Waits for the end of the connection.
    pub fn closed(&mut self) {
        while self.next().is_some() {}
    }

    pub fn set_patience(&self, patience: Duration) {
        self.stream.set_read_timeout(Some(patience)).expect("a time-out");
    }
}
