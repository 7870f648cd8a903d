//! Channels inside a WebSocket connection.

use base64::Engine;
use bytes::{BufMut, Bytes, BytesMut};
use tokio_tungstenite::tungstenite::{Message, protocol::WebSocketConfig};

/// Largest message that a client may send.
pub const MAX_FRAME: usize = 4 << 20;

/// A subprotocol of a WebSocket connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// `v5.channel.k8s.io`: binary frames; a frame `255, channel` closes that channel.
    V5,
    /// `v4.channel.k8s.io`: binary frames.
    V4,
    /// `v4.base64.channel.k8s.io`: text frames, one character `'0' + channel`, then base64.
    V4Base64,
}

impl Protocol {
    /// The name in `Sec-WebSocket-Protocol`.
    pub fn name(self) -> &'static str {
        match self {
            Self::V5 => "v5.channel.k8s.io",
            Self::V4 => "v4.channel.k8s.io",
            Self::V4Base64 => "v4.base64.channel.k8s.io",
        }
    }

    /// One frame of a channel.
    pub(super) fn encode(self, channel: u8, data: &[u8]) -> Message {
        match self {
            Self::V5 | Self::V4 => {
                let mut frame = BytesMut::with_capacity(data.len() + 1);
                frame.put_u8(channel);
                frame.put_slice(data);
                Message::Binary(frame.freeze())
            }
            Self::V4Base64 => {
                let mut text = String::from(char::from(b'0' + channel));
                base64::engine::general_purpose::STANDARD.encode_string(data, &mut text);
                Message::text(text)
            }
        }
    }

    /// What a client's message says; `None` if it says nothing (empty, control, or undecodable).
    pub(super) fn decode(self, message: Message) -> Option<Incoming> {
        let data = match (self, message) {
            (Self::V5 | Self::V4, Message::Binary(data)) => data,
            // Clients of the binary protocols may send text, the channel still being the first byte.
            (Self::V5 | Self::V4, Message::Text(text)) => Bytes::from(text),
            (Self::V4Base64, Message::Text(text)) => {
                let (channel, data) = text.as_str().split_at_checked(1)?;
                let channel = channel.as_bytes()[0].checked_sub(b'0').filter(|channel| *channel < 64)?;
                let data = base64::engine::general_purpose::STANDARD.decode(data).ok()?;
                return Some(Incoming::Data(channel, data.into()));
            }
            _ => return None,
        };
        match (self, data.first()?) {
            (Self::V5, 255) => data.get(1).copied().map(Incoming::Close),
            (_, &channel) => Some(Incoming::Data(channel, data.slice(1..))),
        }
    }
}

/// A decoded message of the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Incoming {
    /// Bytes for a channel.
    Data(u8, Bytes),
    /// End of a channel (V5).
    Close(u8),
}

pub(super) fn socket_config() -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(Some(MAX_FRAME))
        .max_frame_size(Some(MAX_FRAME))
        .write_buffer_size(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_round_trip() {
        for protocol in [Protocol::V5, Protocol::V4, Protocol::V4Base64] {
            for data in [&b""[..], b"x", &[0, 255, 10]] {
                let decoded = protocol.decode(protocol.encode(3, data));
                assert_eq!(decoded, Some(Incoming::Data(3, Bytes::copy_from_slice(data))), "{protocol:?}");
            }
        }
        assert_eq!(Protocol::V4Base64.encode(1, b"hi"), Message::text("1aGk="));
    }

    #[test]
    fn only_v5_closes_channels() {
        let close = || Message::Binary(Bytes::from_static(&[255, 0]));
        assert_eq!(Protocol::V5.decode(close()), Some(Incoming::Close(0)));
        assert_eq!(Protocol::V4.decode(close()), Some(Incoming::Data(255, Bytes::from_static(&[0]))));
        assert_eq!(Protocol::V5.decode(Message::Binary(Bytes::from_static(&[255]))), None);
    }

    #[test]
    fn nonsense_says_nothing() {
        assert_eq!(Protocol::V4.decode(Message::Binary(Bytes::new())), None);
        for text in ["", "é", "xaGk=", "0not base64", "/aGk="] {
            assert_eq!(Protocol::V4Base64.decode(Message::text(text)), None, "{text}");
        }
        assert_eq!(Protocol::V4Base64.decode(Message::Binary(Bytes::from_static(b"0aGk="))), None);
    }
}
