package geo

// region is about where an AWS region is: the town that it is named after, or
// the nearest.
func region(name string) (Place, bool) {
	for _, r := range regions() {
		if r.name == name {
			return Place{r.lat, r.lon, r.town + " (" + name + ")"}, true
		}
	}
	return Place{}, false
}

type regionPlace struct {
	name     string
	lat, lon float64
	town     string
}

func regions() [38]regionPlace {
	return [38]regionPlace{
		{"us-east-1", 38.95, -77.45, "Northern Virginia"},
		{"us-east-2", 39.96, -83.00, "Ohio"},
		{"us-west-1", 37.35, -121.96, "Northern California"},
		{"us-west-2", 45.84, -119.70, "Oregon"},
		{"us-gov-east-1", 39.96, -83.00, "Ohio"},
		{"us-gov-west-1", 45.84, -119.70, "Oregon"},
		{"ca-central-1", 45.50, -73.57, "Montreal"},
		{"ca-west-1", 51.05, -114.07, "Calgary"},
		{"mx-central-1", 20.59, -100.39, "Querétaro"},
		{"sa-east-1", -23.55, -46.63, "São Paulo"},
		{"eu-west-1", 53.35, -6.26, "Dublin"},
		{"eu-west-2", 51.51, -0.13, "London"},
		{"eu-west-3", 48.86, 2.35, "Paris"},
		{"eu-central-1", 50.11, 8.68, "Frankfurt"},
		{"eu-central-2", 47.38, 8.54, "Zurich"},
		{"eu-north-1", 59.33, 18.07, "Stockholm"},
		{"eu-south-1", 45.46, 9.19, "Milan"},
		{"eu-south-2", 41.65, -0.89, "Zaragoza"},
		{"af-south-1", -33.92, 18.42, "Cape Town"},
		{"il-central-1", 32.09, 34.78, "Tel Aviv"},
		{"me-south-1", 26.07, 50.56, "Bahrain"},
		{"me-central-1", 24.45, 54.38, "United Arab Emirates"},
		{"ap-south-1", 19.08, 72.88, "Mumbai"},
		{"ap-south-2", 17.39, 78.49, "Hyderabad"},
		{"ap-east-1", 22.32, 114.17, "Hong Kong"},
		{"ap-east-2", 25.03, 121.57, "Taipei"},
		{"ap-northeast-1", 35.68, 139.69, "Tokyo"},
		{"ap-northeast-2", 37.57, 126.98, "Seoul"},
		{"ap-northeast-3", 34.69, 135.50, "Osaka"},
		{"ap-southeast-1", 1.35, 103.82, "Singapore"},
		{"ap-southeast-2", -33.87, 151.21, "Sydney"},
		{"ap-southeast-3", -6.21, 106.85, "Jakarta"},
		{"ap-southeast-4", -37.81, 144.96, "Melbourne"},
		{"ap-southeast-5", 3.14, 101.69, "Kuala Lumpur"},
		{"ap-southeast-6", -36.85, 174.76, "Auckland"},
		{"ap-southeast-7", 13.76, 100.50, "Bangkok"},
		{"cn-north-1", 39.90, 116.41, "Beijing"},
		{"cn-northwest-1", 37.50, 105.20, "Ningxia"},
	}
}
