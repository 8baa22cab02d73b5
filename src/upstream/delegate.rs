//! What a stream of ours says of the stream below it.

/// Answers for a type what Pingora asks of a stream beside reading and writing, by its field
/// `inner`. Who led to the connection (`GetProxyDigest`) and `Peek` are each type's own.
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

pub(crate) use delegate;
