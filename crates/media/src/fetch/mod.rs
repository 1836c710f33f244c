//! Bytes from elsewhere, from where it is allowed.

mod address;
mod file;
mod http;
mod policy;

pub use self::policy::FetchPolicy;
pub(crate) use self::{file::Folder, http::Fetcher};
