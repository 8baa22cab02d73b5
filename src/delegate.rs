//! What stream wrappers pass on to the stream below them.
//!
//! Pingora asks more of a stream than reading and writing. A wrapper with a field `inner` writes by
//! hand only what it changes.

/// Implements for a type, by its field `inner`, what Pingora asks of a stream beside reading and
/// writing. `GetProxyDigest` and `Peek` differ and stay with each type.
macro_rules! delegate {
    ($stream:ty) => {
        #[async_trait::async_trait]
        impl pingora_core::protocols::Shutdown for $stream {
            async fn shutdown(&mut self) {
                self.inner.shutdown().await;
            }
        }

        impl pingora_core::protocols::UniqueID for $stream {
            fn id(&self) -> pingora_core::protocols::UniqueIDType {
                self.inner.id()
            }
        }

        impl pingora_core::protocols::Ssl for $stream {
            fn get_ssl_digest(
                &self,
            ) -> Option<std::sync::Arc<pingora_core::protocols::tls::SslDigest>> {
                self.inner.get_ssl_digest()
            }

            fn selected_alpn_proto(&self) -> Option<pingora_core::protocols::ALPN> {
                self.inner.selected_alpn_proto()
            }
        }

        impl pingora_core::protocols::GetTimingDigest for $stream {
            // Pingora asks for it with every request, and nothing in Weir reads it.
            fn get_timing_digest(&self) -> Vec<Option<pingora_core::protocols::TimingDigest>> {
                Vec::new()
            }

            fn get_read_pending_time(&self) -> std::time::Duration {
                self.inner.get_read_pending_time()
            }

            fn get_write_pending_time(&self) -> std::time::Duration {
                self.inner.get_write_pending_time()
            }
        }

        impl pingora_core::protocols::GetSocketDigest for $stream {
            fn get_socket_digest(
                &self,
            ) -> Option<std::sync::Arc<pingora_core::protocols::SocketDigest>> {
                self.inner.get_socket_digest()
            }
        }
    };
}

/// Implements `AsyncWrite` for a type by its field `inner`.
///
/// With `write: method`, each write, plain or vectored, is a closure that the method calls:
/// `fn method(&mut self, poll: impl FnOnce(&mut Self) -> Poll<io::Result<usize>>) -> …`. With
/// `flush: method`, so is each flush.
macro_rules! delegate_write {
    ($stream:ty $(, write: $write:ident)? $(, flush: $flush:ident)?) => {
        impl tokio::io::AsyncWrite for $stream {
            fn poll_write(
                self: std::pin::Pin<&mut Self>,
                context: &mut std::task::Context<'_>,
                bytes: &[u8],
            ) -> std::task::Poll<std::io::Result<usize>> {
                let poll = |this: &mut Self| {
                    std::pin::Pin::new(&mut this.inner).poll_write(context, bytes)
                };
                $crate::delegate::through!(self.get_mut(), poll $(, $write)?)
            }

            fn poll_flush(
                self: std::pin::Pin<&mut Self>,
                context: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                let poll =
                    |this: &mut Self| std::pin::Pin::new(&mut this.inner).poll_flush(context);
                $crate::delegate::through!(self.get_mut(), poll $(, $flush)?)
            }

            fn poll_shutdown(
                self: std::pin::Pin<&mut Self>,
                context: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                std::pin::Pin::new(&mut self.get_mut().inner).poll_shutdown(context)
            }

            fn poll_write_vectored(
                self: std::pin::Pin<&mut Self>,
                context: &mut std::task::Context<'_>,
                pieces: &[std::io::IoSlice<'_>],
            ) -> std::task::Poll<std::io::Result<usize>> {
                let poll = |this: &mut Self| {
                    std::pin::Pin::new(&mut this.inner).poll_write_vectored(context, pieces)
                };
                $crate::delegate::through!(self.get_mut(), poll $(, $write)?)
            }

            fn is_write_vectored(&self) -> bool {
                self.inner.is_write_vectored()
            }
        }
    };
}

/// A call through a method of the stream, if it has one.
macro_rules! through {
    ($stream:expr, $poll:expr) => {
        $crate::delegate::call($stream, $poll)
    };
    ($stream:expr, $poll:expr, $method:ident) => {
        $stream.$method($poll)
    };
}

/// A call of a closure that may be called once only.
pub(crate) fn call<S, T>(stream: &mut S, poll: impl FnOnce(&mut S) -> T) -> T {
    poll(stream)
}

pub(crate) use {delegate, delegate_write, through};
