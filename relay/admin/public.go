package admin

import "strings"

// assetsPath is below where the dashboard has its scripts and styles.
const assetsPath = "/assets/"

// Public reports whether everybody who can reach the listener may ask for a path, as it stands in the request: health,
// and the page of the dashboard, which holds nothing and asks its user for a token. All else needs one of
// listen.admin_tokens, if there are any.
func Public(path string) bool {
	return path == livePath || path == readyPath || path == "/" || strings.HasPrefix(path, assetsPath)
}
