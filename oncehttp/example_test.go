package oncehttp_test

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"

	"github.com/oncelog/oncelog"
	"github.com/oncelog/oncelog/oncehttp"
)

// A service whose orders are placed once, however often they are sent.
func Example() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	st, err := oncelog.Open(dir, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer st.Close()
	r, err := st.Receiver(nil)
	if err != nil {
		log.Fatal(err)
	}

	orders := 0
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		orders++
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, "order number %d", orders)
	})
	once, err := oncehttp.New(r, &oncehttp.Options{Scope: oncehttp.AnyCaller})
	if err != nil {
		log.Fatal(err)
	}
	server := httptest.NewServer(once.Wrap(handler))
	defer server.Close()

	for range 2 {
		req, err := http.NewRequest("POST", server.URL, strings.NewReader("one bicycle"))
		if err != nil {
			log.Fatal(err)
		}
		req.Header.Set("Idempotency-Key", `"8e03978e-40d5-43dd-bc93-6894a57f9324"`)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			log.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		if err != nil {
			log.Fatal(err)
		}
		res.Body.Close()
		fmt.Printf("%d %s, replayed: %q\n", res.StatusCode, body, res.Header.Get("Idempotent-Replayed"))
	}
	// Output:
	// 201 order number 1, replayed: ""
	// 201 order number 1, replayed: "true"
}
