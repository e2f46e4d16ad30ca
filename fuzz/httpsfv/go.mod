module github.com/oncelog/oncelog/fuzz/httpsfv

go 1.26

require (
	github.com/dunglas/httpsfv v1.1.0
	github.com/oncelog/oncelog v0.0.0
	github.com/stretchr/testify v1.12.1
)

require go.yaml.in/yaml/v3 v3.0.5 // indirect

replace github.com/oncelog/oncelog => ../..
