//! A reader on tokio-tungstenite: what any correct client sees.

use super::{PATIENCE, raw::split_url};
use futures_util::{SinkExt, StreamExt};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{
        Message,
        client::IntoClientRequest,
        handshake::client::Response,
        http::{HeaderName, HeaderValue},
    },
};

/// A client's connection.
pub struct Reader {
    ws: WebSocketStream<TcpStream>,
    /// The payloads of the pings so far.
    pub pings: Vec<String>,
}

/// How a stream ended: the close code and reason, or nothing when the connection just broke.
pub type Goodbye = Option<(u16, String)>;

impl Reader {
    pub async fn open(url: &str) -> Self {
        Reader::open_with(url, &[]).await.0
    }

    /// As an instance does: ids in pings.
    pub async fn open_link(url: &str) -> (Self, Response) {
        Reader::open_with(url, &[("sec-websocket-protocol", "wsevent.v1")]).await
    }

    pub async fn open_with(url: &str, headers: &[(&'static str, &str)]) -> (Self, Response) {
        let url = url.replacen("http", "ws", 1);
        let mut request = url.as_str().into_client_request().expect("a URL");
        for (name, value) in headers {
            let value = HeaderValue::from_str(value).expect("a header value");
            request.headers_mut().insert(HeaderName::from_static(name), value);
        }
        let (host, port, _) = split_url(&url);
        let open = async {
            let tcp = TcpStream::connect((host, port)).await.expect("connect");
            client_async(request, tcp).await.unwrap_or_else(|error| panic!("open {url}: {error}"))
        };
        let (ws, response) = timeout(PATIENCE, open).await.expect("an answer in time");
        (Reader { ws, pings: Vec::new() }, response)
    }

    pub async fn send(&mut self, message: impl Into<Message>) {
        self.ws.send(message.into()).await.expect("send");
    }

    /// The next data message, or how the stream ended.
    pub async fn next(&mut self) -> Result<Message, Goodbye> {
        loop {
            let next = timeout(PATIENCE, self.ws.next()).await.expect("a message or an end in time");
            match next {
                Some(Ok(Message::Ping(payload))) => {
                    self.pings.push(String::from_utf8_lossy(&payload).into_owned());
                    // The answer is queued by now: it leaves with this flush.
                    let _ = self.ws.flush().await;
                }
                Some(Ok(Message::Close(frame))) => {
                    let _ = timeout(PATIENCE, self.ws.next()).await;
                    return Err(frame.map(|frame| (frame.code.into(), frame.reason.as_str().to_owned())));
                }
                Some(Ok(Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(data)) => return Ok(data),
                Some(Err(_)) | None => return Err(None),
            }
        }
    }

    /// The next event's bytes; panics at the end of the stream.
    pub async fn event(&mut self) -> Vec<u8> {
        match self.next().await {
            Ok(message) => message.into_data().to_vec(),
            Err(goodbye) => panic!("the stream ended: {goodbye:?}"),
        }
    }

    /// The next event as text; panics on a binary one and at the end of the stream.
    pub async fn text(&mut self) -> String {
        match self.next().await {
            Ok(Message::Text(text)) => text.as_str().to_owned(),
            other => panic!("no text: {other:?}"),
        }
    }

    pub async fn texts(&mut self, n: usize) -> Vec<String> {
        let mut texts = Vec::with_capacity(n);
        while texts.len() < n {
            texts.push(self.text().await);
        }
        texts
    }

    /// Every event up to the end of the stream, and how that came.
    pub async fn rest(&mut self) -> (Vec<String>, Goodbye) {
        let mut texts = Vec::new();
        loop {
            match self.next().await {
                Ok(message) => texts.push(String::from_utf8_lossy(&message.into_data()).into_owned()),
                Err(goodbye) => return (texts, goodbye),
            }
        }
    }

    pub async fn close(mut self) {
        let _ = self.ws.close(None).await;
        while let Ok(Some(Ok(_))) = timeout(PATIENCE, self.ws.next()).await {}
    }
}
