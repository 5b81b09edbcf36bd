package sigma

import "encoding/json"

// ExtensionSchema is the JSON Schema of rules that have `stormbell:`, made of
// what the parser goes by. It describes that key alone.
func ExtensionSchema() []byte {
	defs := object{
		"refinement": keysSchema("Refines `correlation:`.", refinementKeys(), ""),
		"detection":  keysSchema("Beside `detection:`.", []extensionKey{shadowKey(), riskKey()}, ""),
	}
	var kinds []any
	for _, t := range extensions() {
		defs[string(t)] = keysSchema("", extensionKeys(t), t)
		kinds = append(kinds, object{"$ref": "#/$defs/" + string(t)})
	}
	b, err := json.MarshalIndent(object{
		"$schema":     "https://json-schema.org/draft/2020-12/schema",
		"title":       "Sigma rules with `stormbell:`",
		"description": "Beside `correlation:` the key refines it, beside `detection:` it says one thing; without `detection:` and `correlation:` it is the rule.",
		"type":        "object",
		"if":          object{"required": []string{"correlation"}},
		"then":        object{"properties": object{"stormbell": object{"$ref": "#/$defs/refinement"}}},
		"else": object{
			"if":   object{"required": []string{"detection"}},
			"then": object{"properties": object{"stormbell": object{"$ref": "#/$defs/detection"}}},
			"else": object{"properties": object{"stormbell": object{"oneOf": kinds}}},
		},
		"$defs": defs,
	}, "", "  ")
	if err != nil {
		return nil // it holds texts and numbers only
	}
	return append(b, '\n')
}

type object map[string]any

func keysSchema(about string, keys []extensionKey, t CorrelationType) object {
	properties, required := object{}, []string{}
	if t != "" {
		properties["type"] = object{"const": string(t)}
		required = append(required, "type")
	}
	for _, k := range keys {
		s := k.schema()
		s["description"] = k.about
		properties[k.name] = s
		if k.required {
			required = append(required, k.name)
		}
	}
	out := object{"type": "object", "properties": properties, "required": required, "additionalProperties": false}
	if about != "" {
		out["description"] = about
	}
	return out
}

// schema says what the value of a key looks like.
func (k *extensionKey) schema() object {
	name := object{"type": "string", "pattern": "^[^|]+$"}
	list := object{"type": "array", "items": name, "minItems": 1, "uniqueItems": true}
	switch k.form {
	case formDuration:
		return object{"type": "string", "pattern": "^0*[1-9][0-9]*[smhdw]$"}
	case formReference:
		return object{"type": "string", "minLength": 1}
	case formReferences:
		list["maxItems"] = MaxReferred
		return object{"oneOf": []any{name, list}}
	case formField:
		list["maxItems"] = 1
		return object{"oneOf": []any{name, list}}
	case formFields:
		list["maxItems"] = MaxGroupBy
		if !k.required {
			list["minItems"] = 0
		}
		return object{"oneOf": []any{name, list}}
	case formWhole:
		return object{"type": "integer", "minimum": k.least, "maximum": k.most}
	case formNumber:
		return object{"type": "number", "minimum": k.least, "maximum": k.most, "multipleOf": json.Number("0.001")}
	case formChoice:
		return object{"enum": k.choices}
	case formBoolean:
		return object{"type": "boolean"}
	case formThreshold:
		return object{"oneOf": []any{
			object{"type": "object", "properties": object{"gte": object{"type": "integer", "minimum": 1, "maximum": k.most}}, "required": []string{"gte"}, "additionalProperties": false},
			object{"type": "object", "properties": object{"gt": object{"type": "integer", "minimum": 0, "maximum": k.most}}, "required": []string{"gt"}, "additionalProperties": false},
		}}
	case formScores:
		score := object{"type": "integer", "minimum": 0, "maximum": MaxScore}
		return object{"type": "object", "additionalProperties": score, "propertyNames": object{"enum": levels()}}
	default:
		return object{"type": "object", "additionalProperties": object{
			"type": "object", "additionalProperties": object{"type": "string", "minLength": 1},
		}}
	}
}
