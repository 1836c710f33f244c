//! Files of this machine, of one folder.

use std::{
    fs::File,
    io::Read as _,
    path::{Component, Path, PathBuf},
};

use bytes::Bytes;

use crate::{
    MediaError, MediaErrorKind,
    limits::{check_bytes, too_many_bytes},
};

/// A folder whose files may be read.
#[derive(Debug)]
pub(crate) struct Folder {
    /// As it was given, made absolute: clients know it by this name.
    named: PathBuf,
    /// Where it really is.
    real: PathBuf,
}

impl Folder {
    /// # Errors
    /// [`MediaErrorKind::Invalid`] if there is no such folder.
    pub fn new(path: &Path) -> Result<Self, MediaError> {
        let no_folder = |error| {
            let message = format!("no media can be read from {}: {error}", path.display());
            MediaError::new(MediaErrorKind::Invalid, message)
        };
        let named = std::path::absolute(path).map_err(no_folder)?;
        let real = path.canonicalize().map_err(no_folder)?;
        if !real.is_dir() {
            return Err(no_folder(std::io::ErrorKind::NotADirectory.into()));
        }
        Ok(Self { named, real })
    }

    /// Reads a file, whose path is absolute or begins in this folder. Blocks.
    ///
    /// # Errors
    /// [`MediaErrorKind::Forbidden`] for what is elsewhere, or leads there, whether it exists or not;
    /// [`MediaErrorKind::Unreachable`] for what can't be read; [`MediaErrorKind::TooLarge`] for more than `allowed` bytes.
    pub fn read(&self, what: &str, path: &Path, allowed: usize) -> Result<Bytes, MediaError> {
        // Judged by its name alone first: that a file elsewhere exists is not told either.
        let elsewhere = || {
            let message = format!("{} is not in the folder that --allowed-local-media-path names", path.display());
            MediaError::new(MediaErrorKind::Forbidden, message)
        };
        let within = self.within(path).ok_or_else(elsewhere)?;
        let unreadable = |error: std::io::Error| {
            MediaError::new(MediaErrorKind::Unreachable, format!("{} can't be read: {error}", path.display()))
        };
        let real = within.canonicalize().map_err(unreadable)?;
        if !real.starts_with(&self.real) {
            return Err(elsewhere());
        }
        // Opening a pipe would wait for somebody at its other end.
        if !real.metadata().map_err(unreadable)?.is_file() {
            let message = format!("{} can't be read: it is no file", path.display());
            return Err(MediaError::new(MediaErrorKind::Unreachable, message));
        }
        let file = File::open(real).map_err(unreadable)?;
        let length = file.metadata().map_err(unreadable)?.len();
        if length > allowed as u64 {
            return Err(too_many_bytes(what, allowed));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(allowed));
        // It may grow while it is read.
        file.take(allowed as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        check_bytes(what, bytes.len(), allowed)?;
        Ok(bytes.into())
    }

    /// A path's place below the folder, by its name alone.
    fn within(&self, path: &Path) -> Option<PathBuf> {
        let relative = if path.is_absolute() {
            path.strip_prefix(&self.named).or_else(|_| path.strip_prefix(&self.real)).ok()?
        } else {
            path
        };
        let inside = relative.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        inside.then(|| self.real.join(relative))
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn only_what_is_in_the_folder() {
        let home = tempfile::tempdir().unwrap();
        let home = home.path().canonicalize().unwrap();
        fs::create_dir_all(home.join("media/sub")).unwrap();
        for name in ["media/a", "media/sub/b", "secret"] {
            fs::write(home.join(name), name).unwrap();
        }
        fs::write(home.join("media/empty"), "").unwrap();
        symlink(home.join("secret"), home.join("media/out")).unwrap();
        symlink(&home, home.join("media/up")).unwrap();
        symlink("sub/b", home.join("media/inner")).unwrap();
        symlink(home.join("media"), home.join("alias")).unwrap();
        fs::create_dir(home.join("media2")).unwrap();
        fs::write(home.join("media2/a"), "x").unwrap();

        use MediaErrorKind::{Forbidden, Invalid, TooLarge, Unreachable};
        let cases: [(&str, Result<&str, MediaErrorKind>); 19] = [
            ("a", Ok("media/a")),
            ("./sub/b", Ok("media/sub/b")),
            ("inner", Ok("media/sub/b")),
            ("{}/alias/a", Ok("media/a")),
            ("{}/media/sub/b", Ok("media/sub/b")),
            ("none", Err(Unreachable)),
            ("sub", Err(Unreachable)),
            ("sub/b/c", Err(Unreachable)),
            ("empty", Err(Invalid)),
            ("long", Err(TooLarge)),
            ("out", Err(Forbidden)),
            ("up/secret", Err(Forbidden)),
            ("../secret", Err(Forbidden)),
            ("sub/../a", Err(Forbidden)),
            ("{}/secret", Err(Forbidden)),
            ("{}/media/../secret", Err(Forbidden)),
            ("{}/media2/a", Err(Forbidden)),
            ("/etc/passwd", Err(Forbidden)),
            ("/no/such/file", Err(Forbidden)),
        ];
        fs::write(home.join("media/long"), vec![b'x'; 101]).unwrap();
        let folder = Folder::new(&home.join("alias")).unwrap();
        for (path, wanted) in cases {
            let path = path.replace("{}", home.to_str().unwrap());
            let read = folder.read("picture", Path::new(&path), 100);
            let wanted = wanted.map(|text| Bytes::from(text.to_owned()));
            assert_eq!(read.map_err(|error| error.kind), wanted, "{path}");
        }
        assert_eq!(Folder::new(&home.join("none")).unwrap_err().kind, Invalid);
        assert_eq!(Folder::new(&home.join("secret")).unwrap_err().kind, Invalid);
    }

    #[test]
    fn a_pipe_is_not_waited_for() {
        let home = tempfile::tempdir().unwrap();
        let pipe = home.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let error = Folder::new(home.path()).unwrap().read("picture", Path::new("pipe"), 100).unwrap_err();
        assert_eq!(error.kind, MediaErrorKind::Unreachable);
    }
}
