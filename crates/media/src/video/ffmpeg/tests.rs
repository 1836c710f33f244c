use std::{fs, os::unix::fs::PermissionsExt as _, time::Duration};

use super::*;

/// A program in place of `ffmpeg`: what it does when asked for times, and when asked for pixels.
struct Fake {
    folder: tempfile::TempDir,
}

impl Fake {
    fn new(times: &str, pixels: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let script = format!(
            "#!/bin/sh\ncd '{}'\nprintf '%s\\n' \"$*\" >> called\ncase \"$*\" in\n*framecrc*) {times};;\n*) {pixels};;\nesac\n",
            folder.path().display()
        );
        let path = folder.path().join("ffmpeg");
        // Written by a child of its own: a file that is open for writing, in whatever thread forks, can't be run.
        let written = Command::new("sh").args(["-c", "printf '%s' \"$1\" > \"$2\"", "sh", &script]).arg(&path).status();
        assert!(written.unwrap().success());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        Self { folder }
    }

    fn decode(&self, limits: &Limits) -> Result<Video, MediaError> {
        let program = self.folder.path().join("ffmpeg");
        decode_with(program.as_os_str(), Container::Mp4, b"the file", &Sampling::default(), limits)
    }
}

/// Six frames in three seconds, listed as they are decoded.
const TIMES: &str = "printf '#software: x\\n#tb 0: 1/1000\\n0, -9, 1000, 500, 9, 0x0\\n0, 0, 2000, 500, 9, 0x0\\n0, 500, 1500, 500, \
     9, 0x0\\n0, 1, 2500, 500, 9, 0x0, F=0x0\\n0, 1, 3500, 500, 9, 0x0\\n0, 1, 3000, 500, 9, 0x0\\n'";
const PIXELS: &str = "for i in 1 2 3 4 5 6; do printf 'P6\\n2 1\\n255\\nabc%d%d%d' $i $i $i; done";

#[test]
fn frames_and_their_times() {
    let fake = Fake::new(TIMES, PIXELS);
    let video = fake.decode(&Limits::default()).unwrap();
    let at: Vec<f64> = video.frames.iter().map(|frame| frame.at).collect();
    assert_eq!(at, [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]);
    assert_eq!(video.frames[5].picture, Picture::from_rgb(2, 1, *b"abc666"));
    let called = fs::read_to_string(fake.folder.path().join("called")).unwrap();
    for call in called.lines() {
        assert!(call.contains("-protocol_whitelist file -f mov -i file:/dev/stdin -map 0:V:0 "), "{call}");
    }
    assert_eq!(called.lines().count(), 2);
}

#[test]
fn the_file_is_its_standard_input() {
    let fake = Fake::new(&format!("{TIMES}; cat /dev/stdin > first"), &format!("{PIXELS}; cat > second"));
    fake.decode(&Limits::default()).unwrap();
    for copy in ["first", "second"] {
        assert_eq!(fs::read(fake.folder.path().join(copy)).unwrap(), b"the file", "{copy}");
    }
}

#[test]
fn it_knows_little_of_our_environment() {
    let fake = Fake::new(&format!("{TIMES}; env > seen"), PIXELS);
    fake.decode(&Limits::default()).unwrap();
    let seen = fs::read_to_string(fake.folder.path().join("seen")).unwrap();
    assert!(seen.contains("PATH="));
    assert!(env::var_os("CARGO_MANIFEST_DIR").is_some() && !seen.contains("CARGO_MANIFEST_DIR"), "{seen}");
}

#[test]
fn what_goes_wrong() {
    let tight = Limits { decode_time: Duration::from_millis(300), pixels: 100, video_pixels: 11, ..Limits::default() };
    let endless = "while :; do printf '0, 0, 0, 0, 0, 0\\n'; done";
    let cases: [(&str, &str, &str, MediaErrorKind, &str); 10] = [
        ("it fails", "echo 'moov atom not found' >&2; exit 1", PIXELS, MediaErrorKind::Invalid, "moov atom not found"),
        ("it fails silently", "exit 3", PIXELS, MediaErrorKind::Invalid, "exit status: 3"),
        ("no frames", "printf '#tb 0: 1/25\\n'", PIXELS, MediaErrorKind::Invalid, "no frames"),
        ("no pixels", TIMES, "echo 'no decoder' >&2; exit 1", MediaErrorKind::Invalid, "no decoder"),
        ("no PPM", TIMES, "echo hello", MediaErrorKind::Invalid, "no frames"),
        ("a huge frame", TIMES, "printf 'P6\\n99999 99999\\n255\\n'", MediaErrorKind::TooLarge, "99999×99999"),
        ("too many pixels together", TIMES, PIXELS, MediaErrorKind::TooLarge, "ask for fewer"),
        (
            "its own limit",
            "echo 'exceeds specified max pixel count' >&2; exit 1",
            PIXELS,
            MediaErrorKind::TooLarge,
            "pixels",
        ),
        ("it hangs, with a child", "sleep 1000", PIXELS, MediaErrorKind::Timeout, "0.3 s"),
        ("it never ends", endless, PIXELS, MediaErrorKind::Timeout, "0.3 s"),
    ];
    for (name, times, pixels, kind, message) in cases {
        let error = Fake::new(times, pixels).decode(&tight).unwrap_err();
        assert!(error.kind == kind && error.message.contains(message), "{name}: {error:?}");
    }
}

#[test]
fn when_there_is_none() {
    let decode = |program: &str| {
        decode_with(OsStr::new(program), Container::Matroska, b"x", &Sampling::default(), &Limits::default())
            .unwrap_err()
    };
    let error = decode("/no/such/ffmpeg");
    assert_eq!(error.kind, MediaErrorKind::Unsupported);
    assert!(error.message.contains("/no/such/ffmpeg") && error.message.contains(VARIABLE), "{error}");
    let error = decode("/");
    assert!(error.kind == MediaErrorKind::Unsupported && error.message.contains("can't be started"), "{error}");
}

#[test]
fn choices_are_shallow() {
    assert_eq!(choice(&[3]), "eq(n,3)");
    assert_eq!(choice(&[3, 7, 9]), "if(lt(n,7),eq(n,3),if(lt(n,9),eq(n,7),eq(n,9)))");
    let depth = |text: &str| {
        let levels = text.chars().scan(0, |level, c| {
            *level += i32::from(c == '(') - i32::from(c == ')');
            Some(*level)
        });
        levels.max()
    };
    let all: Vec<usize> = (0..768).collect();
    assert_eq!(depth(&choice(&all)), Some(11));
}
