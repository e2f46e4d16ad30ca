package oncehttp

import (
	"testing"

	"github.com/oncelog/oncelog/fuzz/decoders"
)

func TestSeeds(t *testing.T) {
	decoders.Seeds(t, "FuzzDecode", decoders.Damaged([]decoders.Seed{
		{Name: "a-response", Args: []any{recordedExample}},
		{Name: "an-empty-field", Args: []any{[]byte("\x01\xcc\x01\x01\x01A\x00")}},
		{Name: "a-body-alone", Args: []any{[]byte("\x01\xc8\x01\x00body")}},
	}))
	decoders.Seeds(t, "FuzzParseString", []decoders.Seed{
		{Name: "plain", Args: []any{`"k"`}}, {Name: "escapes", Args: []any{`"a\"b\\"`}}, {Name: "two", Args: []any{`"k", "l"`}},
		{Name: "raw", Args: []any{`k`}}, {Name: "open", Args: []any{`"k`}},
		{Name: "parameters", Args: []any{`"k";a=1.5;b=:aGk=:;c=?1;d=@1;e=%"%c3%a4";f="x";g=*t`}},
	})
}
