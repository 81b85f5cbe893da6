//! How are reads put off until enough has come? The system wakes nobody before (`SO_RCVLOWAT`, socket(7)).

use std::os::fd::OwnedFd;

use super::socket::Socket;

/// The receiving side of a TCP connection, for its low-water mark.
#[derive(Debug)]
pub(super) struct LowWater {
    socket: OwnedFd,
    mark: i32,
}

impl LowWater {
    /// That of a connection whose readers wait for the mark: TCP, on Linux.
    pub(super) fn of(socket: &Socket) -> Option<Self> {
        let socket = socket.tcp()?.try_clone_to_owned().ok()?;
        set(&socket, 1).then_some(Self { socket, mark: 1 })
    }

    /// Readers wait for so many bytes from now on, or for what there is if it was lowered; whether that is so.
    pub(super) fn put(&mut self, bytes: i32) -> bool {
        if self.mark != bytes && set(&self.socket, bytes) {
            self.mark = bytes;
        }
        self.mark == bytes
    }
}

#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "no safe crate has this option; it takes a third off a drain (docs/performance.md)")]
fn set(socket: &OwnedFd, bytes: i32) -> bool {
    use std::os::fd::AsRawFd;
    // It is at most four bytes long.
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the descriptor is open while it is owned, and the option is an int, which outlives the call.
    let set = unsafe {
        let value = std::ptr::from_ref(&bytes).cast();
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVLOWAT, value, length)
    };
    set == 0
}

#[cfg(not(target_os = "linux"))]
fn set(_socket: &OwnedFd, _bytes: i32) -> bool {
    false
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    async fn is_readable(socket: &Socket) -> bool {
        let Socket::Tcp(stream) = socket else { unreachable!("it is TCP") };
        tokio::time::timeout(Duration::from_millis(100), stream.readable()).await.is_ok()
    }

    #[tokio::test]
    async fn a_reader_is_woken_once_the_mark_is_reached_or_lowered() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = Socket::Tcp(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap());
        let (mut server, _) = listener.accept().await.unwrap();
        let mut low_water = LowWater::of(&socket).unwrap();
        assert!(low_water.put(1000));
        server.write_all(&[1; 999]).await.unwrap();
        assert!(!is_readable(&socket).await, "too little has come");
        assert!(low_water.put(1));
        assert!(is_readable(&socket).await, "what there is can be read");
        let Socket::Tcp(stream) = &socket else { unreachable!("it is TCP") };
        assert_eq!(stream.try_read(&mut [0; 2000]).unwrap(), 999);
        assert!(low_water.put(1000));
        server.write_all(&[1; 1000]).await.unwrap();
        assert!(is_readable(&socket).await, "enough has come");
    }
}
