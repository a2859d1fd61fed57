//! A connection that carries MQTT packets: as they are, or in the binary messages of a WebSocket, which may hold parts of
//! packets and several at once (MQTT 5 §6).

use crate::{
    event::put_header,
    inbound::Stream,
    proto::{
        line::{Line, Moved},
        ws::{
            assemble::{Assembler, Got},
            frame::{self, Fault, code, op},
        },
    },
};
use bytes::{Bytes, BytesMut};
use std::io;

/// FIN and the opcode of a whole binary message.
const BINARY: u8 = 0x80 | op::BINARY;

/// See the module's text.
pub struct Channel {
    line: Line,
    websocket: Option<Assembler>,
    /// What came and was not read yet.
    pub inbound: BytesMut,
}

/// What packets travel in.
pub enum Carrier {
    /// The connection itself.
    Plain,
    /// WebSocket messages of at most so many bytes, behind this answer to the handshake.
    WebSocket(usize, Bytes),
}

impl Channel {
    /// `early` is what came already.
    pub fn new(stream: Stream, carrier: Carrier, early: &[u8]) -> Self {
        match carrier {
            Carrier::Plain => {
                Channel { line: Line::new(stream, Bytes::new()), websocket: None, inbound: BytesMut::from(early) }
            }
            Carrier::WebSocket(max, answer) => {
                let mut assembler = Assembler::new(true, max);
                assembler.buf.extend_from_slice(early);
                Channel { line: Line::new(stream, answer), websocket: Some(assembler), inbound: BytesMut::new() }
            }
        }
    }

    /// The connection below.
    pub fn stream(&self) -> &Stream {
        &self.line.stream
    }

    /// Sends packets.
    pub fn send(&mut self, packets: Bytes) {
        if self.websocket.is_some() && !packets.is_empty() {
            let mut header = BytesMut::new();
            put_header(&mut header, BINARY, packets.len());
            self.line.send(header.freeze());
        }
        self.line.send(packets);
    }

    /// Bytes that wait for the peer.
    pub fn waiting(&self) -> usize {
        self.line.waiting()
    }

    /// Whether all that was sent is with the kernel.
    pub fn is_clear(&self) -> bool {
        self.line.is_clear()
    }

    /// Writes what waits, and reads if asked to. Nothing is lost when this is dropped in between.
    ///
    /// # Errors
    /// What ended the connection.
    pub async fn go_on(&mut self, reads: bool) -> io::Result<Moved> {
        let inbound = self.websocket.as_mut().map_or(&mut self.inbound, |assembler| &mut assembler.buf);
        self.line.go_on(inbound, reads).await
    }

    /// Takes what came out of its messages; false when the peer closes.
    ///
    /// # Errors
    /// How to close a WebSocket that breaks a rule.
    pub fn unwrap(&mut self) -> Result<bool, Fault> {
        let Some(assembler) = &mut self.websocket else { return Ok(true) };
        while let Some(got) = assembler.next()? {
            match got {
                Got::Message { text: false, payload } => self.inbound.extend_from_slice(&payload),
                Got::Message { .. } => return Err(Fault { code: code::UNSUPPORTED, reason: "MQTT is binary" }),
                Got::Ping(payload) => self.line.send(frame::control(op::PONG, &payload).freeze()),
                Got::Pong(_) => {}
                Got::Close(..) => return Ok(false),
            }
        }
        if assembler.is_idle() {
            // An idle client holds no buffer.
            assembler.buf = BytesMut::new();
        }
        Ok(true)
    }

    /// Sends what waits and closes.
    pub async fn close(mut self, fault: Option<Fault>) {
        if self.websocket.is_some() {
            let (code, reason) = fault.map_or((code::DONE, ""), |fault| (fault.code, fault.reason));
            self.line.send(frame::close_frame(code, reason).freeze());
        }
        self.line.see_off(self.websocket.is_some()).await;
    }
}
