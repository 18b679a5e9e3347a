import org.jetbrains.kotlin.gradle.dsl.JvmTarget

plugins {
    alias(libs.plugins.android.application)
    alias(libs.plugins.kotlin.android)
    alias(libs.plugins.kotlin.compose)
}

android {
    namespace = "{{package}}"
    compileSdk = libs.versions.compileSdk.get().toInt()

    defaultConfig {
        applicationId = "{{package}}"
        minSdk = libs.versions.minSdk.get().toInt()
        targetSdk = libs.versions.targetSdk.get().toInt()
        versionCode = 1
        versionName = "1.0"
        testInstrumentationRunner = "androidx.test.runner.AndroidJUnitRunner"
        ndk {
            // 64-bit phones and emulators: what ExecuTorch's library has
            abiFilters += listOf("arm64-v8a", "x86_64")
        }
    }

    buildTypes {
        release {
            isMinifyEnabled = true
            isShrinkResources = true
            proguardFiles(getDefaultProguardFile("proguard-android-optimize.txt"), "proguard-rules.pro")
        }
        // What :macrobenchmark measures: a release that is signed with the debug key.
        create("benchmark") {
            initWith(getByName("release"))
            signingConfig = signingConfigs.getByName("debug")
            matchingFallbacks += "release"
        }
    }

    buildFeatures {
        buildConfig = true
        compose = true
    }

    compileOptions {
        sourceCompatibility = JavaVersion.toVersion(libs.versions.jvm.get())
        targetCompatibility = JavaVersion.toVersion(libs.versions.jvm.get())
    }

    androidResources {
        // Models hardly get smaller, and are copied faster from where they lie uncompressed.
        noCompress += listOf("onnx", "pte")
    }

    packaging {
        // Uncompressed and aligned in the APK, which pages of 16 KB need.
        jniLibs.useLegacyPackaging = false
    }
}

kotlin {
    compilerOptions {
        jvmTarget = JvmTarget.fromTarget(libs.versions.jvm.get())
    }
}

dependencies {
    implementation(project(":core"))
    implementation(libs.{{runtime}})
{{#tokenizer}}
    implementation(libs.djl.tokenizers)
    runtimeOnly(libs.djl.tokenizers.native)
    runtimeOnly(libs.fbjni)
{{/tokenizer}}
    implementation(libs.activity.compose)
    implementation(libs.coroutines.android)
    implementation(libs.lifecycle.compose)
    implementation(libs.lifecycle.viewmodel)
    implementation(libs.profileinstaller)
    implementation(platform(libs.compose.bom))
    implementation(libs.compose.material3)
    androidTestImplementation(libs.test.junit)
    androidTestImplementation(libs.test.runner)
}
