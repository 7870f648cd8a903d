//! One JSON message and its file descriptors per packet of a Unix `SOCK_SEQPACKET` socket. The kernel keeps
//! message boundaries, so there is no framing to get wrong, and descriptors stay with their message.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Largest message in bytes: below the kernel's default socket buffer (212,992), above a 64 KiB command line
/// with its JSON escapes.
pub(crate) const MAX_MESSAGE: usize = 160 * 1024;
/// Most descriptors in one message.
pub(crate) const MAX_DESCRIPTORS: usize = 8;

/// A connected pair, both ends close-on-exec.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Sends one message. `WouldBlock` on a non-blocking socket whose buffer is full.
pub(crate) fn send<T: Serialize>(
    socket: impl AsFd,
    message: &T,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let body = serde_json::to_vec(message)?;
    if body.len() > MAX_MESSAGE || descriptors.len() > MAX_DESCRIPTORS {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("request of {} bytes, the limit is {MAX_MESSAGE}", body.len()),
        ));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(&socket, &[IoSlice::new(&body)], &mut control, SendFlags::NOSIGNAL)
    })?;
    Ok(())
}

/// Receives one message; `None` when the peer has closed its end.
pub(crate) fn receive<T: DeserializeOwned>(socket: impl AsFd) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut body = vec![0_u8; MAX_MESSAGE];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = match rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(
            &socket,
            &mut [IoSliceMut::new(&mut body)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )
    }) {
        Err(rustix::io::Errno::CONNRESET) => return Ok(None),
        other => other?,
    };
    let descriptors = control
        .drain()
        .flat_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => descriptors.collect(),
            _ => Vec::new(),
        })
        .collect();
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "message beyond the limits"));
    }
    if received.bytes == 0 {
        return Ok(None);
    }
    Ok(Some((serde_json::from_slice(&body[..received.bytes])?, descriptors)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_arrives_with_its_descriptors_and_the_end_is_seen() {
        let (left, right) = pair().unwrap();
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        send(&left, &"hello", &[reader.as_fd()]).unwrap();
        let (text, descriptors) = receive::<String>(&right).unwrap().unwrap();
        assert_eq!((text.as_str(), descriptors.len()), ("hello", 1));
        rustix::io::write(&writer, b"x").unwrap();
        assert_eq!(rustix::io::read(&descriptors[0], &mut [0; 4]).unwrap(), 1);
        drop(left);
        assert!(receive::<String>(&right).unwrap().is_none());
    }

    #[test]
    fn a_message_beyond_the_limit_is_refused_before_it_is_sent() {
        let (left, _right) = pair().unwrap();
        let error = send(&left, &"x".repeat(MAX_MESSAGE), &[]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn what_is_no_message_is_an_error_and_no_panic() {
        let (left, right) = pair().unwrap();
        rustix::net::send(&left, b"{\"no\":", SendFlags::empty()).unwrap();
        assert!(receive::<Vec<u8>>(&right).is_err());
    }
}
