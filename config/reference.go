package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
)

const (
	maxSecretFile = 64 << 10 // bytes of one ${file:…}
	maxExpanded   = 8 << 20  // bytes that all references of a file may come to, and of all files they name
)

// A reference may stand without quotes where YAML gives braces a meaning of their own: {token: ${env:TOKEN}}. So
// its braces are replaced by two characters of a private use area before the file is parsed, one for one, which
// keeps lines and columns, and put back in every text.
var reference = regexp.MustCompile(`\$\{[^{}"'\r\n]*\}`)

// shield hides the braces of references. It fails if the file uses up the private characters itself.
func shield(data string) (shielded string, restore *strings.Replacer, err error) {
	for open := rune(0xE000); open < 0xE100; open += 2 {
		left, right := string(open), string(open+1)
		if strings.Contains(data, left) || strings.Contains(data, right) {
			continue
		}
		shielded = reference.ReplaceAllStringFunc(data, func(s string) string {
			return "$" + left + s[2:len(s)-1] + right
		})
		return shielded, strings.NewReplacer(left, "{", right, "}"), nil
	}
	return "", nil, errors.New("the file is not a config; write text without characters of the private use area")
}

var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// expanded is a text with its references replaced.
type expanded struct {
	value string
	shown string   // with *** in place of each reference
	refs  bool     // there was at least one
	files []string // that it was read from

	contents []Secret // what the references stand for
}

// expand replaces the references in a text. Errors name variables and files, never their content.
func (d *decoder) expand(text string) (expanded, error) {
	out := expanded{value: text, shown: text}
	if !strings.Contains(text, "${") {
		return out, nil
	}
	var value, shown strings.Builder
	write := func(s string) { value.WriteString(s); shown.WriteString(s) }
	for text != "" {
		i := strings.IndexByte(text, '$')
		if i < 0 {
			break
		}
		write(text[:i])
		text = text[i:]
		switch {
		case strings.HasPrefix(text, "$${"):
			write("${")
			text = text[3:]
		case strings.HasPrefix(text, "${"):
			name, rest, ok := strings.Cut(text[2:], "}")
			if !ok {
				return out, errors.New("a reference is not closed; write ${env:NAME} or ${file:/path}, or $${ for a literal ${")
			}
			content, err := d.lookup(name, &out)
			if err != nil {
				return out, err
			}
			if d.expandedBytes += len(content); d.expandedBytes > maxExpanded {
				return out, fmt.Errorf("the references of the file come to more than %s", Size(maxExpanded))
			}
			value.WriteString(content)
			shown.WriteString(mask)
			out.refs = true
			out.contents = append(out.contents, NewSecret(content))
			text = rest
		default:
			write("$")
			text = text[1:]
		}
	}
	write(text)
	out.value, out.shown = value.String(), shown.String()
	return out, nil
}

func (d *decoder) lookup(name string, out *expanded) (string, error) {
	kind, arg, _ := strings.Cut(name, ":")
	switch kind {
	case "env":
		if !envName.MatchString(arg) {
			return "", errors.New("not the name of an environment variable; write ${env:NAME}")
		}
		value, ok := d.environ[arg]
		if !ok {
			return "", fmt.Errorf("environment variable %s is not set; set it, or write the value in another way", arg)
		}
		return value, nil
	case "file":
		if arg == "" {
			return "", errors.New("the name of the file is missing; write ${file:/path}")
		}
		if !filepath.IsAbs(arg) {
			arg = filepath.Join(d.dir, arg)
		}
		out.files = append(out.files, arg)
		return d.readSecret(arg)
	}
	return "", errors.New("unknown reference; write ${env:NAME} or ${file:/path}, or $${ for a literal ${")
}

// secretFile is the content of a file that references name, read once for all of them.
type secretFile struct {
	text string
	open bool // to every user of the machine
	err  error
}

func (d *decoder) readSecret(path string) (string, error) {
	file, ok := d.secretFiles[path]
	if !ok {
		file = d.readSecretFile(path)
		d.secretFiles[path] = file
		d.src.files[path] = true
	}
	return file.text, file.err
}

func (d *decoder) readSecretFile(path string) secretFile {
	if d.fileBytes > maxExpanded {
		return secretFile{err: fmt.Errorf("the referenced files come to more than %s", Size(maxExpanded))}
	}
	f, err := openRegular(path)
	if err != nil {
		return secretFile{err: fmt.Errorf("read %q: %w; write the path of a readable file", clip(path), err)}
	}
	defer f.Close()
	data, err := readBounded(f, maxSecretFile)
	if err != nil {
		return secretFile{err: fmt.Errorf("read %q: %w; write the path of a file with just the secret", clip(path), err)}
	}
	d.fileBytes += len(data)
	info, err := f.Stat()
	text, cut := strings.CutSuffix(string(data), "\n")
	if cut {
		text = strings.TrimSuffix(text, "\r")
	}
	return secretFile{text: text, open: err == nil && info.Mode().Perm()&0o004 != 0}
}
