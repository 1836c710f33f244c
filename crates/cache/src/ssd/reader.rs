//! The thread that reads.

use std::{fs::File, io, sync::Arc};

use super::{
    entry::SsdEvent,
    folder::Folder,
    format::{self, Fault, Header, Identity},
    queue::{Order, Queue, Why, bytes_of},
};
use crate::BlockHash;

/// Reads blocks, and leaves all that is to be done about bad ones to the writer, so that one thread alone changes the
/// folder.
pub(super) struct Reader {
    pub(super) queue: Arc<Queue>,
    pub(super) folder: Arc<Folder>,
    pub(super) identity: Arc<Identity>,
}

impl Reader {
    pub(super) fn run(&self) {
        while let Some((hash, queued)) = self.queue.next_read() {
            let read = match queued {
                Some(block) => Ok(block.groups.clone()),
                None => self.read(hash),
            };
            match read {
                Ok(groups) => {
                    let bytes = bytes_of(&groups) as u64;
                    self.queue.count(|stats| {
                        stats.read_blocks += 1;
                        stats.read_bytes += bytes;
                    });
                    self.queue.touch(hash);
                    self.queue.tell([SsdEvent::Loaded { hash, groups }]);
                }
                Err(fault) => self.queue.order(Order::Lost { hash, why: judge(&self.folder, hash, &fault) }),
            }
        }
    }

    fn read(&self, hash: BlockHash) -> Result<Vec<Option<Vec<u8>>>, Fault> {
        let (mut file, header) = open(&self.folder, &self.identity, hash)?;
        format::read_groups(&mut file, &header, self.identity.dtype)
    }
}

/// Opens the block's file and reads its header; the file stands at what the header tells of.
pub(super) fn open(folder: &Folder, identity: &Identity, hash: BlockHash) -> Result<(File, Header), Fault> {
    let mut file = File::open(folder.file(hash))?;
    let len = file.metadata()?.len();
    let header = format::read_header(&mut file, len, identity)?;
    if header.entry.hash == hash { Ok((file, header)) } else { Err(Fault::Corrupt("it is another block")) }
}

/// What a fault means for the block.
pub(super) fn judge(folder: &Folder, hash: BlockHash, fault: &Fault) -> Why {
    let file = || folder.file(hash).display().to_string();
    match fault {
        Fault::Corrupt(what) => {
            tracing::warn!(file = file(), "a block of the SSD cache is deleted: {what}");
            Why::Corrupt
        }
        Fault::Io(error) if error.kind() == io::ErrorKind::NotFound => Why::Absent,
        Fault::Io(error) => {
            tracing::debug!(file = file(), %error, "a block of the SSD cache cannot be read");
            Why::Error
        }
    }
}
