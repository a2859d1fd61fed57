//! The fan-out as it is written first: tokio-tungstenite, a task for each client, a broadcast channel between them.
//!
//! `naive H:P` sends what comes as messages at `/pub` to everybody else.

use futures_util::{SinkExt, StreamExt};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::broadcast::{self, Sender, error::RecvError},
};
use tokio_tungstenite::{
    accept_hdr_async,
    tungstenite::{
        Error, Message,
        handshake::server::{Request, Response},
    },
};

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).expect("an address to listen on");
    let listener = TcpListener::bind(address).await?;
    let (events, _) = broadcast::channel(1024);
    loop {
        let (socket, _) = listener.accept().await?;
        tokio::spawn(serve(socket, events.clone()));
    }
}

async fn serve(socket: TcpStream, events: Sender<Message>) -> Result<(), Error> {
    socket.set_nodelay(true)?;
    let mut publishes = false;
    // The type is the library's.
    #[allow(clippy::result_large_err)]
    let look = |request: &Request, response: Response| {
        publishes = request.uri().path() == "/pub";
        Ok(response)
    };
    let (mut writes, mut reads) = accept_hdr_async(socket, look).await?.split();
    let mut received = events.subscribe();
    loop {
        tokio::select! {
            message = reads.next() => match message {
                Some(Ok(message)) if publishes && message.is_text() => drop(events.send(message)),
                Some(Ok(_)) => {}
                _ => return Ok(()),
            },
            event = received.recv(), if !publishes => match event {
                Ok(event) => writes.send(event).await?,
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return Ok(()),
            },
        }
    }
}
